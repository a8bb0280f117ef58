//! Debian's usual kernel with each network card: an address by DHCP, a file from the host, a connection to the guest.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::line::{Line, SERIAL};
use crate::machine::Folder;
use crate::{LONG, guest};

/// Bytes of the file.
const SIZE: usize = 3_000_000;

/// A web server that gives one file, once.
fn serve() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).unwrap();
        let body: Vec<u8> = (0..SIZE).map(|i| (i / 7) as u8).collect();
        write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").unwrap();
        stream.write_all(&body).unwrap();
    });
    port
}

/// Commands that bring the network up; the script is what `udhcpc` calls.
const SETUP: &str = "printf '#!/bin/sh\\n[ \"$1\" = bound ] && ip addr add $ip/24 dev $interface && \
                     ip route add default via $router && echo address $ip, name server $dns\\n' >/tmp/u; \
                     chmod +x /tmp/u; ip link set eth0 up; udhcpc -i eth0 -s /tmp/u -n -q";

fn fetches(card: &str, driver: &str) {
    let Some(kernel) = guest("linux-net/vmlinuz") else { return };
    let initrd = guest("linux-net/initrd").unwrap();
    let folder = Folder::new();
    let port = serve();
    let forwarded = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let kernel =
        ["-kernel", kernel.to_str().unwrap(), "-initrd", initrd.to_str().unwrap(), "-append", "console=ttyS0 quiet"];
    let board = format!(
        "-accel tcg -m 256 -display none -no-reboot {SERIAL} \
         -nic user,model={card},mac=52:54:00:11:22:33,hostfwd=tcp:127.0.0.1:{forwarded}-:7"
    );
    let mut vm = folder.start(board.split(' ').chain(kernel));
    let mut line = Line::connect(&folder);
    line.wait_for("guest: ready", LONG);
    line.send(&format!(
        "cd /drivers; for m in $(cat order); do case $m in e1000*|8139*|ne2k*|virtio_net) \
         [ $m = {driver} ] || continue;; esac; insmod $m.ko; done\n"
    ));
    line.wait_for("guest: status 0", LONG);
    line.send(&format!("{SETUP}; cat /sys/class/net/eth0/address\n"));
    line.wait_for("address 10.0.2.15, name server 10.0.2.3", LONG);
    line.wait_for("52:54:00:11:22:33", LONG);
    line.send(&format!("wget -q -O /tmp/file http://10.0.2.2:{port}/ && sha256sum /tmp/file\n"));
    line.wait_for("23a8781f57e96fab6b1b1cc50be06541906a0fc82a988b98b8b95e6a0d6267e1", LONG);
    line.wait_for("guest: status 0", LONG);
    // The other way: what comes in goes out again.
    line.send("nc -l -p 7 -e cat & sleep 1; echo listening\n");
    line.wait_for("listening", LONG);
    let mut stream = TcpStream::connect(("127.0.0.1", forwarded)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(600))).unwrap();
    stream.write_all(b"there and back").unwrap();
    let mut back = [0; 14];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"there and back");
    line.send("poweroff -f\n");
    line.read_to_end(LONG);
    assert_eq!(vm.exit_code(), 0);
}

#[test]
fn linux_uses_the_e1000() {
    fetches("e1000", "e1000");
}

#[test]
#[ignore = "takes minutes: scripts/test-boots"]
fn linux_uses_the_virtio_card() {
    fetches("virtio-net-pci", "virtio_net");
}

#[test]
#[ignore = "takes minutes: scripts/test-boots"]
fn linux_uses_the_rtl8139() {
    fetches("rtl8139", "8139cp");
}

#[test]
#[ignore = "takes minutes: scripts/test-boots"]
fn linux_uses_the_ne2000() {
    fetches("ne2k_pci", "ne2k-pci");
}
