//! Peers that send rubbish: no panic, no endless loop, no memory without bound.

use super::{Bench, Mode};

/// A stream of pseudo-random numbers (xorshift64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn pick<'a>(&mut self, from: &[&'a [u8]]) -> &'a [u8] {
        from[usize::try_from(self.next() % from.len() as u64).unwrap()]
    }
}

/// What comes back for a piece of input; a terminal shows bytes, not text.
fn flood(bench: &Bench, pieces: &[&[u8]], seed: u64, count: usize) -> usize {
    let mut noise = Noise(seed);
    let mut shown = 0;
    for _ in 0..count {
        let mut input = Vec::new();
        for _ in 0..noise.next() % 12 {
            input.extend_from_slice(noise.pick(pieces));
            if noise.next().is_multiple_of(4) {
                input.push(noise.next().to_le_bytes()[0]);
            }
        }
        bench.request.input.push(&input);
        bench.turn();
        shown += std::mem::take(&mut *bench.terminal.seen.lock().unwrap()).len();
    }
    shown
}

#[test]
fn rubbish_at_the_prompt_does_no_harm() {
    let bench = Bench::new(Mode::Human);
    let pieces: &[&[u8]] = &[
        b"info ",
        b"x /",
        b"99999999999999999999",
        b"print ",
        b"(((((",
        b"$rip",
        b"\t",
        b"\t\t",
        b"\r",
        b"\x1b[A",
        b"\x1b[",
        b"\x1b",
        b"\x7f",
        b"\x01",
        b"\x12",
        b"sendkey ",
        b"ctrl-alt-",
        b"i /",
        b"0x",
        b"\xff\xfe",
        b"\0",
        b"help ",
        b"memsave ",
        b"\"",
        b"\\",
        b"mouse_move -9999999999 ",
        b"screendump ",
        b"-f ",
        b"quit",
    ];
    assert!(flood(&bench, pieces, 0x9e37_79b9_7f4a_7c15, 4000) > 0);
    // It still listens: the line so far is thrown away first.
    bench.request.input.push(b"\x03\x15\r");
    bench.turn();
    let _ = bench.terminal.seen.lock().unwrap().split_off(0);
    bench.request.input.push(b"\x15info name\r");
    bench.turn();
    let seen = String::from_utf8_lossy(&bench.terminal.seen.lock().unwrap()).into_owned();
    assert!(seen.contains("test"), "{seen:?}");
}

#[test]
fn rubbish_in_json_is_answered_with_errors() {
    let bench = Bench::new(Mode::Control { pretty: false });
    let pieces: &[&[u8]] = &[
        b"{\"execute\":",
        b"\"qmp_capabilities\"",
        b"\"query-status\"",
        b"}",
        b"{",
        b"[",
        b"]",
        b",",
        b":",
        b"\"arguments\":{",
        b"\"id\":",
        b"1e999",
        b"-0",
        b"null",
        b"true",
        b"\"\\ud800\"",
        b"\xc0\x80",
        b"\xff",
        b"\n",
        b"'a'",
        b"%d",
        b"\"human-monitor-command\"",
        b"\"command-line\":\"info name\"",
        b"18446744073709551616",
    ];
    assert!(flood(&bench, pieces, 0x0123_4567_89ab_cdef, 4000) > 0);
    // FFh starts the parser anew, as QEMU's does.
    bench.request.input.push(b"\xff\n{\"execute\":\"qmp_capabilities\"}{\"execute\":\"query-name\"}\n");
    bench.turn();
    let seen = String::from_utf8_lossy(&bench.terminal.seen.lock().unwrap()).into_owned();
    assert!(seen.contains("\"name\": \"test\"") || seen.contains("error"), "{seen:?}");
}

#[test]
fn json_that_nests_for_ever_is_refused() {
    let bench = Bench::new(Mode::Control { pretty: false });
    bench.seen();
    for _ in 0..64 {
        bench.request.input.push(&[b'['; 4096]);
        bench.turn();
    }
    let seen = bench.seen();
    assert!(seen.contains("error"), "{}", &seen[..seen.len().min(200)]);
}
