//! The settings of the software CPU: `-accel tcg,…` and `-icount`, with QEMU's texts.

use crate::keyval::value::{ValueError, parse_bool, parse_number};

/// How vCPUs share host threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TcgThreads {
    /// All vCPUs take turns on one thread.
    Single,
    /// Each has its own.
    Multi,
}

/// `-icount`: machine time follows the instructions that the guest executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Icount {
    /// An instruction takes 2 to this power nanoseconds, 0 to 10. While all vCPUs wait, time jumps to the next timer
    /// (`sleep=off`).
    pub shift: u32,
}

/// What `-accel tcg` is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TcgSettings {
    /// `thread=`; `None`: the default, which is one thread a vCPU unless `icount` is on.
    pub threads: Option<TcgThreads>,
    /// `one-insn-per-tb=on`: blocks have one instruction.
    pub one_instruction_per_block: bool,
    /// `tb-size=`: how many MiB of decoded code each processor keeps; `None` (or 0): the default.
    pub code_cache_mib: Option<u32>,
    /// `split-wx=`: no mapping is writable and executable at once; `None`: as the accelerator likes. The software CPU
    /// makes no executable memory, so that nothing is to be split either way.
    pub split_wx: Option<bool>,
    /// `-icount`.
    pub icount: Option<Icount>,
}

impl TcgSettings {
    /// Reads the properties of `-accel tcg`; of equal names the last counts.
    ///
    /// # Errors
    /// QEMU's text.
    pub fn parse(properties: &[(String, String)], icount: Option<Icount>) -> Result<Self, String> {
        let mut settings = Self { icount, ..Self::default() };
        for (name, value) in properties {
            let switch = || parse_bool(name, value).map_err(|error| error.to_string());
            match name.as_str() {
                "thread" => settings.threads = Some(threads(value, icount)?),
                "one-insn-per-tb" => settings.one_instruction_per_block = switch()?,
                "split-wx" => settings.split_wx = Some(switch()?),
                "tb-size" => settings.code_cache_mib = Some(mebibytes(value)?).filter(|size| *size > 0),
                _ => return Err(format!("Property 'tcg-accel.{name}' not found")),
            }
        }
        Ok(settings)
    }
}

fn threads(value: &str, icount: Option<Icount>) -> Result<TcgThreads, String> {
    match value {
        "single" => Ok(TcgThreads::Single),
        "multi" if icount.is_some() => Err("No MTTCG when icount is enabled".to_owned()),
        "multi" => Ok(TcgThreads::Multi),
        _ => Err(format!("Invalid 'thread' setting {value}")),
    }
}

fn mebibytes(value: &str) -> Result<u32, String> {
    let expects = |expected| ValueError::Expects { name: "tb-size".into(), expected }.to_string();
    let number = parse_number("tb-size", value).map_err(|_| expects("uint64"))?;
    u32::try_from(number).map_err(|_| expects("uint32_t"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TcgSettings, String> {
        let pairs: Vec<(String, String)> =
            text.split(',').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect();
        TcgSettings::parse(&pairs, None)
    }

    #[test]
    fn properties_are_read() {
        assert_eq!(parse(""), Ok(TcgSettings::default()));
        let all = parse("thread=single,thread=multi,one-insn-per-tb=on,tb-size=0x20,split-wx=off").unwrap();
        assert_eq!((all.threads, all.one_instruction_per_block), (Some(TcgThreads::Multi), true));
        assert_eq!((all.code_cache_mib, all.split_wx), (Some(32), Some(false)));
        assert_eq!(parse("tb-size=0").unwrap().code_cache_mib, None);
    }

    #[test]
    fn refusals_read_as_qemus() {
        // From QEMU 10.0.2.
        let error = |text| parse(text).unwrap_err();
        assert_eq!(error("foo=1"), "Property 'tcg-accel.foo' not found");
        assert_eq!(error("thread=foo"), "Invalid 'thread' setting foo");
        assert_eq!(error("tb-size=1M"), "Parameter 'tb-size' expects uint64");
        assert_eq!(error("tb-size=4294967296"), "Parameter 'tb-size' expects uint32_t");
        assert_eq!(error("tb-size=-1"), "Parameter 'tb-size' expects uint32_t");
        assert_eq!(error("split-wx=x"), "Parameter 'split-wx' expects 'on' or 'off'");
        let multi = [("thread".to_owned(), "multi".to_owned())];
        let error = TcgSettings::parse(&multi, Some(Icount { shift: 3 })).unwrap_err();
        assert_eq!(error, "No MTTCG when icount is enabled");
    }
}
