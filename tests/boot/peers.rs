//! Serial ports whose other end misbehaves.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::machine::{Folder, PATIENCE, accelerator, accelerators, wait_for};
use crate::monitor::{Hmp, connect};

#[test]
fn a_flood_to_a_peer_that_never_reads_stops_the_transmitter_only() {
    for accel in accelerators() {
        let folder = Folder::new();
        folder.assemble("flood16");
        let mut machine = folder.start_line(&format!(
            "-accel {accel} -m 32 -nodefaults -display none -debugcon file:debugcon -device isa-debug-exit,iobase=0xf4 \
             -drive file=flood16.bin,format=raw,snapshot=on -monitor unix:hmp,server=on,wait=off \
             -serial unix:serial,server=on,wait=off",
        ));
        let mut peer = connect(&folder, "serial");
        let mut monitor = Hmp::connect(&folder);
        wait_for("the flood", PATIENCE, || folder.text("debugcon").contains("Sent.").then_some(()));
        assert_eq!(monitor.run("info status"), "VM status: running\r\n");
        assert_eq!(folder.text("debugcon"), "Sent. ", "a peer that reads nothing emptied the transmitter");
        // It reads at last, and the guest goes on.
        let mut received = vec![0; 1 << 20];
        wait_for("the guest's end", PATIENCE, || {
            peer.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            // Nothing more for now is no error.
            let _ = peer.read(&mut received);
            folder.text("debugcon").contains("Empty.").then_some(())
        });
        assert_eq!(machine.exit_code(), 35);
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Bytes of no meaning, with many telnet commands (RFC 854: FFh, then SB, WILL, WONT, DO, DONT ...) among them.
fn rubbish(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let byte = |[kind, value, ..]: [u8; 8]| {
        if kind < 100 {
            0xff
        } else if kind < 160 {
            0xf0 | value
        } else {
            value
        }
    };
    (0..len).map(|_| byte(next())).collect()
}

#[test]
fn telnet_rubbish_does_no_harm() {
    let folder = Folder::new();
    let port = free_port();
    let mut machine = folder.start_line(&format!(
        "-accel {} -m 32 -nodefaults -display none -S -monitor unix:hmp,server=on,wait=off \
         -serial telnet:127.0.0.1:{port},server=on,wait=off",
        accelerator()
    ));
    let mut monitor = Hmp::connect(&folder);
    for _ in 0..4 {
        let mut peer = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), PATIENCE).unwrap();
        peer.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        // The guest takes nothing, so not all of it goes away.
        match peer.write_all(&rubbish(1 << 20)) {
            Ok(()) => {}
            Err(error) => assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}"),
        }
        assert_eq!(monitor.run("info status"), "VM status: paused (prelaunch)\r\n");
    }
    let mut peer = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), PATIENCE).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut greeting = [0; 3];
    peer.read_exact(&mut greeting).unwrap();
    assert_eq!(greeting, [0xff, 0xfb, 0x01], "not IAC WILL ECHO");
    machine.signal("TERM");
    assert_eq!(machine.exit_code(), 0, "{}", folder.text("stderr"));
}
