//! The commands: their names, arguments, and getopt's rules.

/// What a command needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Needs {
    /// Nothing.
    Nothing,
    /// An open image.
    Image,
    /// An image that may be written.
    Writable,
}

/// A command.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) name: &'static str,
    /// Another name.
    pub(super) short: Option<&'static str>,
    /// Arguments at least.
    pub(super) min: usize,
    /// Arguments at most; `None`: any number.
    pub(super) max: Option<usize>,
    pub(super) needs: Needs,
    /// The arguments, as its usage shows them, with a blank in front.
    pub(super) args: &'static str,
    /// What it does, in a line.
    pub(super) what: &'static str,
}

const fn command(name: &'static str, args: &'static str, what: &'static str) -> Command {
    Command { name, short: None, min: 0, max: Some(0), needs: Needs::Image, args, what }
}

impl Command {
    const fn short(mut self, name: &'static str) -> Self {
        self.short = Some(name);
        self
    }

    const fn takes(mut self, min: usize, max: Option<usize>) -> Self {
        self.min = min;
        self.max = max;
        self
    }

    const fn needs(mut self, needs: Needs) -> Self {
        self.needs = needs;
        self
    }

    /// "read [-…] off len -- reads …".
    pub(super) fn usage(&self) -> String {
        format!("{}{} -- {}\n", self.name, self.args, self.what)
    }

    /// Whether the number of arguments fits.
    ///
    /// # Errors
    /// The complaint; `typed` is the name that was used.
    pub(super) fn check_count(&self, typed: &str, count: usize) -> Result<(), String> {
        let Self { min, max, .. } = *self;
        if count >= min && max.is_none_or(|max| count <= max) {
            return Ok(());
        }
        let expected = match max {
            None => format!("at least {min} arguments"),
            Some(max) if max == min => format!("{min} arguments"),
            Some(max) => format!("between {min} and {max} arguments"),
        };
        Err(format!("bad argument count {count} to {typed}, expected {expected}"))
    }
}

/// All of them, sorted by name.
pub(super) const COMMANDS: &[Command] = &[
    command("abort", "", "simulate a program crash using abort(3)").needs(Needs::Nothing),
    command("aio_flush", "", "completes all outstanding aio requests"),
    command("aio_read", " [-Ciqrv] [-P pattern] off len [len..]", "asynchronously reads a number of bytes")
        .takes(2, None),
    command("aio_write", " [-Cfiqruz] [-P pattern] off len [len..]", "asynchronously writes a number of bytes")
        .takes(2, None)
        .needs(Needs::Writable),
    command("alloc", " offset [count]", "checks if offset is allocated in the file").short("a").takes(1, Some(2)),
    command("break", " event tag", "sets a breakpoint on event and tags the stopped request as tag").takes(2, Some(2)),
    command("close", "", "close the current open file").short("c"),
    command("discard", " [-Cq] off len", "discards a number of bytes at a specified offset")
        .short("d")
        .takes(2, None)
        .needs(Needs::Writable),
    command("flush", "", "flush all in-core file state to disk").short("f"),
    command("help", " [command]", "help for one or all commands").short("?").takes(0, Some(1)).needs(Needs::Nothing),
    command("info", "", "prints information about the current file").short("i"),
    command("length", "", "gets the length of the current file").short("l"),
    command("map", " ", "prints the allocated areas of a file"),
    command("open", " [-rsCnkU] [-t cache] [-d discard] [-o options] [path]", "open the file specified by path")
        .short("o")
        .takes(1, None)
        .needs(Needs::Nothing),
    command("quit", "", "exit the program").short("q").takes(0, None).needs(Needs::Nothing),
    command(
        "read",
        " [-abCqrv] [-P pattern [-s off] [-l len]] off len",
        "reads a number of bytes at a specified offset",
    )
    .short("r")
    .takes(2, None),
    command("readv", " [-Cqrv] [-P pattern] off len [len..]", "reads a number of bytes at a specified offset")
        .takes(2, None),
    command("remove_break", " tag", "remove a breakpoint by tag").takes(1, Some(1)),
    command("reopen", " [(-r|-w)] [-c cache] [-o options]", "reopens an image with new options").takes(0, None),
    command("resume", " tag", "resumes the request tagged as tag").takes(1, Some(1)),
    command("sigraise", " signal", "raises a signal").takes(1, Some(1)).needs(Needs::Nothing),
    command("sleep", "", "waits for the given value in milliseconds").takes(1, Some(1)).needs(Needs::Nothing),
    command("truncate", " [-m prealloc_mode] off", "truncates the current file at the given offset")
        .short("t")
        .takes(1, Some(3))
        .needs(Needs::Writable),
    command("wait_break", " tag", "waits for the suspension of a request").takes(1, Some(1)),
    command(
        "write",
        " [-bcCfnqruz] [-P pattern | -s source_file] off len",
        "writes a number of bytes at a specified offset",
    )
    .short("w")
    .takes(2, None)
    .needs(Needs::Writable),
    command("writev", " [-Cfqr] [-P pattern] off len [len..]", "writes a number of bytes at a specified offset")
        .takes(2, None)
        .needs(Needs::Writable),
    command("zone_append", " offset len [len..]", "append write a number of bytes at a specified offset")
        .takes(3, Some(4))
        .needs(Needs::Writable),
    command("zone_close", " offset len", "close a range of zones in zone block device").takes(2, Some(2)),
    command("zone_finish", " offset len", "finish a range of zones in zone block device").takes(2, Some(2)),
    command("zone_open", " offset len", "explicit open a range of zones in zone block device").takes(2, Some(2)),
    command("zone_report", " offset number", "report zone information").takes(2, Some(2)),
    command("zone_reset", " offset len", "reset a zone write pointer in zone block device").takes(2, Some(2)),
];

/// A command by either of its names.
pub(super) fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name || command.short == Some(name))
}

/// A command's arguments, sorted by getopt(3): options anywhere, the rest in order.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    flags: Vec<(char, String)>,
    /// What is no option.
    pub(super) rest: Vec<String>,
}

impl Parsed {
    /// Reads arguments by getopt's letters ("bCP:"; a colon after those with a value).
    ///
    /// # Errors
    /// getopt's complaint, with the command's name as it was typed.
    pub(super) fn new(letters: &str, typed: &str, args: &[&str]) -> Result<Self, String> {
        let mut out = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let Some(group) = arg.strip_prefix('-').filter(|group| !group.is_empty()) else {
                out.rest.push((*arg).to_owned());
                continue;
            };
            if group == "-" {
                out.rest.extend(args.map(|arg| (*arg).to_owned()));
                return Ok(out);
            }
            let mut group = group.chars();
            while let Some(letter) = group.next() {
                let at = letters.find(letter).filter(|_| letter != ':');
                let at = at.ok_or_else(|| format!("{typed}: invalid option -- '{letter}'"))?;
                if !letters[at + letter.len_utf8()..].starts_with(':') {
                    out.flags.push((letter, String::new()));
                    continue;
                }
                let attached = group.as_str();
                let value = if attached.is_empty() { args.next().copied() } else { Some(attached) };
                let value = value.ok_or_else(|| format!("{typed}: option requires an argument -- '{letter}'"))?;
                out.flags.push((letter, value.to_owned()));
                break;
            }
        }
        Ok(out)
    }

    pub(super) fn has(&self, letter: char) -> bool {
        self.flags.iter().any(|(flag, _)| *flag == letter)
    }

    /// The last value of an option.
    pub(super) fn value(&self, letter: char) -> Option<&str> {
        self.flags.iter().rfind(|(flag, _)| *flag == letter).map(|(_, value)| value.as_str())
    }

    /// Options and values in the order given.
    pub(super) fn flags(&self) -> impl Iterator<Item = (char, &str)> {
        self.flags.iter().map(|(flag, value)| (*flag, value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stand_anywhere_and_in_groups() {
        let parsed = Parsed::new("qCP:", "read", &["0", "-qP", "0xa", "-C", "512"]).unwrap();
        assert!(parsed.has('q') && parsed.has('C'));
        assert_eq!(parsed.value('P'), Some("0xa"));
        assert_eq!(parsed.rest, ["0", "512"]);
        assert_eq!(Parsed::new("qCP:", "r", &["-Z"]).unwrap_err(), "r: invalid option -- 'Z'");
        assert_eq!(Parsed::new("qCP:", "r", &["-P"]).unwrap_err(), "r: option requires an argument -- 'P'");
    }

    #[test]
    fn counts_are_checked_with_the_name_that_was_typed() {
        let complain = |name: &str, count| find(name).unwrap().check_count(name, count).unwrap_err();
        assert_eq!(complain("r", 1), "bad argument count 1 to r, expected at least 2 arguments");
        assert_eq!(complain("length", 1), "bad argument count 1 to length, expected 0 arguments");
        assert_eq!(complain("truncate", 4), "bad argument count 4 to truncate, expected between 1 and 3 arguments");
    }
}
