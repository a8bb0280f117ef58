//! The server as clients see it.

mod decoder;
mod encodings;
mod hostile;
mod sessions;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::format::Format;
use super::{Address, Listening, Observer, PowerAction, Server, Settings, Spec};
use crate::ui::keymap::Keymap;
use crate::ui::{
    ConsoleKind, ConsoleSource, Cursor, Display, DisplayListener, InputEvent, InputSink, KeyEvent, Rect, Refresh,
    Surface,
};
use decoder::{Bytes, Decoder};

/// A test that waits longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// An adapter whose picture a test draws.
struct Adapter {
    next: Mutex<Surface>,
    wish: Mutex<Option<(u32, u32)>>,
    kind: ConsoleKind,
}

impl ConsoleSource for Adapter {
    fn kind(&self) -> ConsoleKind {
        self.kind
    }

    fn refresh(&self, surface: &mut Surface, _all: bool) -> Refresh {
        *surface = self.next.lock().unwrap().clone();
        Refresh::Changed(vec![surface.bounds()])
    }

    fn set_ui_size(&self, width: u32, height: u32) {
        *self.wish.lock().unwrap() = Some((width, height));
    }
}

/// Things that happened, one by one.
struct Log<T>(Mutex<Vec<T>>, Condvar);

impl<T: Clone> Log<T> {
    fn new() -> Self {
        Self(Mutex::new(Vec::new()), Condvar::new())
    }

    fn push(&self, item: T) {
        self.0.lock().unwrap().push(item);
        self.1.notify_all();
    }

    /// Waits for this many, and returns all there are.
    fn wait(&self, count: usize) -> Vec<T> {
        let items = self.0.lock().unwrap();
        let (items, timeout) = self.1.wait_timeout_while(items, PATIENCE, |items| items.len() < count).unwrap();
        assert!(!timeout.timed_out(), "{} of {count} came", items.len());
        items.clone()
    }
}

struct Guest {
    events: Log<InputEvent>,
    absolute: Mutex<bool>,
}

impl InputSink for Guest {
    fn input(&self, event: InputEvent) {
        self.events.push(event);
    }

    fn is_absolute(&self) -> bool {
        *self.absolute.lock().unwrap()
    }
}

/// What an observer heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Heard {
    Connected,
    Initialized,
    Disconnected,
    Watched,
    Power(PowerAction),
}

impl Observer for Log<Heard> {
    fn connected(&self, _client: &super::ClientInfo) {
        self.push(Heard::Connected);
    }
    fn initialized(&self, _client: &super::ClientInfo) {
        self.push(Heard::Initialized);
    }
    fn disconnected(&self, _client: &super::ClientInfo) {
        self.push(Heard::Disconnected);
    }
    fn watched(&self) {
        self.push(Heard::Watched);
    }
    fn power(&self, action: PowerAction) {
        self.push(Heard::Power(action));
    }
}

/// A display with a server.
struct Bench {
    display: Arc<Display>,
    adapter: Arc<Adapter>,
    guest: Arc<Guest>,
    heard: Arc<Log<Heard>>,
    server: Arc<Server>,
}

impl Bench {
    fn new(options: &[(&str, &str)]) -> Self {
        Self::of_kind(options, ConsoleKind::Graphic)
    }

    fn of_kind(options: &[(&str, &str)], kind: ConsoleKind) -> Self {
        let options: Vec<_> = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut spec = Spec::parse(None, "none", None, &options).unwrap();
        spec.address = Address::Tcp { host: "127.0.0.1".into(), port: 0, last_port: 0 };
        spec.key_delay = Duration::ZERO;
        let display = Arc::new(Display::new());
        let adapter = Arc::new(Adapter { next: Mutex::new(picture(100, 60)), wish: Mutex::default(), kind });
        let guest = Arc::new(Guest { events: Log::new(), absolute: Mutex::new(true) });
        display.set_guest_input(Arc::clone(&guest) as Arc<dyn InputSink>);
        display.add_console("VGA", Arc::clone(&adapter) as Arc<dyn ConsoleSource>);
        display.refresh();
        let heard = Arc::new(Log::new());
        let settings = Settings {
            desktop_name: "QEMU (test)".to_owned(),
            keymap: Keymap::load("en-us").unwrap(),
            observer: Arc::clone(&heard) as Arc<dyn Observer>,
        };
        let server = Server::start(Listening::bind(spec).unwrap(), &display, settings).unwrap();
        Self { display, adapter, guest, heard, server }
    }

    /// A connection that has said nothing yet.
    fn connect(&self) -> TcpStream {
        let port = self.server.info().listeners[0].service();
        let stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A client through the handshake of 3.8 that understands these encodings.
    fn client(&self, encodings: &[i32]) -> Client {
        let mut client = Client::greet(self.connect(), b"RFB 003.008\n");
        assert_eq!(client.read(2), [1, 1]);
        client.send(&[1]);
        assert_eq!(client.read(4), [0; 4]);
        client.send(&[1]);
        client.read_server_init();
        client.set_encodings(encodings);
        client
    }

    /// Draws, and lets the server know.
    fn draw(&self, surface: Surface) {
        *self.adapter.next.lock().unwrap() = surface;
        self.display.refresh();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.server.stop();
    }
}

/// A picture without equal neighbours.
fn picture(width: u32, height: u32) -> Surface {
    let mut surface = Surface::new(width, height);
    for (index, pixel) in (0_u32..).zip(surface.pixels_mut()) {
        *pixel = index.wrapping_mul(0x0001_0507) & 0x00ff_ffff;
    }
    surface
}

/// A rectangle that came.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Got {
    Pixels(Rect),
    Size(u32, u32),
    ExtendedSize { reason: u32, status: u32, width: u32, height: u32 },
    ExtendedKey,
    PointerMode { absolute: bool },
    Leds(u8),
    Name(String),
    Cursor { hot: (u32, u32), size: (u32, u32), bytes: Vec<u8> },
}

/// A client.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    decoder: Decoder,
    height: u32,
    name: String,
}

impl Client {
    fn greet(stream: TcpStream, version: &[u8; 12]) -> Self {
        let decoder = Decoder::new(Format::NATIVE, 0, 0);
        let mut client = Self { stream, buffer: Vec::new(), decoder, height: 0, name: String::new() };
        assert_eq!(client.read(12), b"RFB 003.008\n");
        client.send(version);
        client
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Whether the server has closed the connection, after all that it still sends.
    fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    fn read_server_init(&mut self) {
        let init = self.read(24);
        let mut bytes = Bytes(&init);
        let (width, height) = (u32::from(bytes.u16()), u32::from(bytes.u16()));
        assert_eq!(bytes.take(16), Format::NATIVE.to_bytes());
        let length = bytes.u32() as usize;
        self.name = String::from_utf8(self.read(length)).unwrap();
        self.decoder.resize(width, height);
        self.height = height;
    }

    fn set_encodings(&mut self, encodings: &[i32]) {
        let mut message = vec![2, 0];
        message.extend(u16::try_from(encodings.len()).unwrap().to_be_bytes());
        message.extend(encodings.iter().flat_map(|number| number.to_be_bytes()));
        self.send(&message);
    }

    fn set_format(&mut self, format: Format) {
        let mut message = vec![0; 4];
        message.extend(format.to_bytes());
        self.send(&message);
        self.decoder.format = format;
    }

    fn request(&mut self, incremental: bool, part: [u16; 4]) {
        let mut message = vec![3, u8::from(incremental)];
        message.extend(part.iter().flat_map(|side| side.to_be_bytes()));
        self.send(&message);
    }

    fn request_all(&mut self, incremental: bool) {
        self.request(incremental, [0, 0, u16::MAX, u16::MAX]);
    }

    fn key(&mut self, down: bool, keysym: u32) {
        let mut message = vec![4, u8::from(down), 0, 0];
        message.extend(keysym.to_be_bytes());
        self.send(&message);
    }

    /// Bytes of the update that is read; they are kept until the update is whole.
    fn fetch(&mut self, length: usize) -> Vec<u8> {
        let bytes = self.read(length);
        self.buffer.extend_from_slice(&bytes);
        bytes
    }

    /// Reads an update.
    fn update(&mut self) -> Vec<Got> {
        let head = self.fetch(4);
        assert_eq!(head[..2], [0, 0], "an update");
        let count = u16::from_be_bytes([head[2], head[3]]);
        (0..count).map(|_| self.rect()).collect()
    }

    fn rect(&mut self) -> Got {
        let head = self.fetch(12);
        let mut bytes = Bytes(&head);
        let [x, y, width, height] = [bytes.u16(), bytes.u16(), bytes.u16(), bytes.u16()].map(u32::from);
        let rect = Rect { x, y, width, height };
        let pixel_bytes = self.decoder.format.bytes();
        match bytes.i32() {
            0 => {
                let body = self.fetch((width * height) as usize * pixel_bytes);
                self.decoder.rect(rect, 0, &mut Bytes(&body));
                Got::Pixels(rect)
            }
            number @ (6 | 16) => {
                let mut body = self.fetch(4);
                let length = Bytes(&body).u32() as usize;
                body.extend(self.fetch(length));
                self.decoder.rect(rect, number, &mut Bytes(&body));
                Got::Pixels(rect)
            }
            7 => {
                let body = self.fetch_tight(width, height);
                self.decoder.rect(rect, 7, &mut Bytes(&body));
                Got::Pixels(rect)
            }
            -223 => {
                self.decoder.resize(width, height);
                Got::Size(width, height)
            }
            -308 => {
                let screens = usize::from(self.fetch(4)[0]);
                self.fetch(screens * 16);
                self.decoder.resize(width, height);
                Got::ExtendedSize { reason: x, status: y, width, height }
            }
            -258 => Got::ExtendedKey,
            -257 => Got::PointerMode { absolute: x == 1 },
            -261 => Got::Leds(self.fetch(1)[0]),
            -307 => {
                let length = Bytes(&self.fetch(4)).u32() as usize;
                Got::Name(String::from_utf8(self.fetch(length)).unwrap())
            }
            -239 => {
                let length = (width * height) as usize * pixel_bytes + (width.div_ceil(8) * height) as usize;
                Got::Cursor { hot: (x, y), size: (width, height), bytes: self.fetch(length) }
            }
            -314 => {
                let length = 4 + (width * height) as usize * 4;
                Got::Cursor { hot: (x, y), size: (width, height), bytes: self.fetch(length) }
            }
            other => panic!("encoding {other}"),
        }
    }

    /// Reads a Tight rectangle of true colour without a palette.
    fn fetch_tight(&mut self, width: u32, height: u32) -> Vec<u8> {
        let mut body = self.fetch(1);
        assert!(matches!(body[0], 0 | 0x90), "control byte {}", body[0]);
        assert!(width * height > 4, "long enough to be compressed");
        let mut length = 0;
        for shift in [0, 7, 14] {
            let byte = self.fetch(1)[0];
            body.push(byte);
            length |= usize::from(byte & if shift == 14 { 0xff } else { 0x7f }) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        body.extend(self.fetch(length));
        body
    }

    /// Whether the client's picture is the surface.
    fn shows(&self, surface: &Surface) -> bool {
        self.decoder.width == surface.width() as usize && self.decoder.pixels == surface.pixels()
    }
}
