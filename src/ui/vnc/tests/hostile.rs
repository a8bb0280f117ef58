//! Clients that mean no good: whatever they send, the server neither panics nor hangs, and serves the next one.

use super::*;

/// A generator of bytes that are the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.to_be_bytes()[3]
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next()).collect()
    }
}

/// What a good client sends up to each state of the protocol.
const STATES: [&[u8]; 4] = [b"", b"RFB 003.008\n", b"RFB 003.008\n\x01", b"RFB 003.008\n\x01\x01"];

/// Sends bytes, reads nothing, and goes.
fn send_and_go(bench: &Bench, parts: &[&[u8]]) {
    let mut stream = bench.connect();
    for part in parts {
        // The server may have closed the connection already.
        let _ = stream.write_all(part);
    }
    let _ = stream.shutdown(std::net::Shutdown::Write);
    // All that the server still sends is read, so that it has seen everything.
    let _ = stream.read_to_end(&mut Vec::new());
}

fn still_serves(bench: &Bench) {
    let mut client = bench.client(&[0]);
    client.request_all(false);
    client.update();
    assert!(client.shows(&picture(100, 60)));
}

#[test]
fn random_bytes_in_every_state_do_no_harm() {
    let bench = Bench::new(&[]);
    let mut random = Random(0x1234_5678_9abc_def1);
    for state in STATES {
        for length in [1, 3, 17, 300] {
            for _ in 0..8 {
                send_and_go(&bench, &[state, &random.bytes(length)]);
            }
        }
    }
    still_serves(&bench);
}

#[test]
fn random_messages_of_known_kinds_do_no_harm() {
    let bench = Bench::new(&[("power-control", "on"), ("lossy", "on")]);
    let mut random = Random(42);
    for _ in 0..60 {
        let mut messages = Vec::new();
        for _ in 0..20 {
            let kind = [0, 2, 3, 3, 3, 4, 5, 6, 250, 251, 255][usize::from(random.next()) % 11];
            let message = match kind {
                // A format that is possible most of the time, and a few encodings of all kinds.
                0 => [
                    &[0, 0, 0, 0][..],
                    &[[8, 16, 32][usize::from(random.next()) % 3]],
                    &[16, 0, 1, 0, 31, 0, 31, 0, 7, 0, 5, 0, 0, 0, 0],
                ]
                .concat(),
                2 => {
                    let numbers = [7_i32, 5, 16, 6, 0, -223, -308, -258, -257, -261, -239, -314, -309, -26, -250];
                    let pick = |random: &mut Random| numbers[usize::from(random.next()) % numbers.len()].to_be_bytes();
                    [&[2, 0, 0, 3][..], &pick(&mut random), &pick(&mut random), &pick(&mut random)].concat()
                }
                3 => [&[3][..], &random.bytes(9)].concat(),
                4 => [&[4][..], &random.bytes(7)].concat(),
                5 => [&[5][..], &random.bytes(5)].concat(),
                6 => [&[6, 0, 0, 0, 0, 0, 0, 9][..], &random.bytes(9)].concat(),
                250 => [&[250][..], &random.bytes(3)].concat(),
                251 => [&[251, 0, 3, 0, 2, 0, 1, 0][..], &random.bytes(16)].concat(),
                _ => [&[255, 0][..], &random.bytes(10)].concat(),
            };
            messages.extend(message);
        }
        send_and_go(&bench, &[STATES[3], &messages]);
    }
    still_serves(&bench);
}

#[test]
fn a_client_that_stops_reading_blocks_nobody() {
    let bench = Bench::new(&[]);
    bench.draw(picture(1600, 1200));
    let mut stuck = bench.client(&[0]);
    // Far more than sockets hold.
    for _ in 0..200 {
        stuck.request(false, [0, 0, 1600, 1200]);
    }
    let mut other = bench.client(&[0]);
    for shade in 0..20 {
        let mut surface = picture(1600, 1200);
        surface.pixels_mut().fill(shade);
        other.request_all(true);
        bench.draw(surface);
        other.update();
    }
    assert_eq!(bench.server.info().clients.len(), 2);
    bench.server.disconnect_all();
    bench.heard.wait(7);
    drop(stuck);
}

#[test]
fn clients_that_say_nothing_lose_their_place_to_new_ones() {
    let bench = Bench::new(&[("connections", "2")]);
    let mut first = Client::greet(bench.connect(), b"RFB 003.008\n");
    let _second = Client::greet(bench.connect(), b"RFB 003.008\n");
    let _third = Client::greet(bench.connect(), b"RFB 003.008\n");
    assert!(first.is_closed());
    assert!(bench.heard.wait(4).contains(&Heard::Disconnected));
    assert_eq!(bench.server.info().clients.len(), 2);
}

#[test]
fn long_clipboards_are_skipped_and_longer_ones_end_the_session() {
    let bench = Bench::new(&[]);
    let mut client = bench.client(&[0]);
    let mut text = vec![6, 0, 0, 0, 0, 0x10, 0, 0];
    text.resize(8 + 0x10_0000, b'x');
    client.send(&text);
    client.request_all(false);
    client.update();
    client.send(&[6, 0, 0, 0, 0, 0x10, 0, 1]);
    assert!(client.is_closed());
}

#[test]
fn a_request_of_nothing_or_outside_is_no_harm() {
    let bench = Bench::new(&[]);
    let mut client = bench.client(&[0]);
    client.request(false, [0, 0, 0, 0]);
    client.request(false, [65535, 65535, 65535, 65535]);
    client.request_all(false);
    client.update();
    assert!(client.shows(&picture(100, 60)));
}
