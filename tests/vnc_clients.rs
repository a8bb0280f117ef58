//! Real VNC clients against our server: `vncdotool` captures a picture and types. Needs real time and the programs;
//! without them it says so and passes.
#![expect(clippy::unwrap_used, reason = "a test panics to fail")]

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dromaius::ui::keymap::Keymap;
use dromaius::ui::vnc::{Address, Listening, NoObserver, Server, Settings, Spec, desktop_name};
use dromaius::ui::{ConsoleKind, ConsoleSource, Display, InputEvent, InputSink, Refresh, Surface};

const WIDTH: u32 = 320;
const HEIGHT: u32 = 200;

/// A picture whose every part has another colour: channels that change places or lose bits are seen.
fn colour(x: u32, y: u32) -> u32 {
    match y / 50 {
        0 => [0x00ff_0000, 0x0000_ff00, 0x0000_00ff, 0x00ff_ffff][(x / 80) as usize % 4],
        1 => (x * 255 / WIDTH) << 16 | (y * 5 % 256) << 8,
        2 => (x * 255 / WIDTH) | 0x0000_4000,
        _ => {
            if (x / 8 + y / 8).is_multiple_of(2) {
                0x0020_2020
            } else {
                0x00c0_c0c0
            }
        }
    }
}

struct Picture;

impl ConsoleSource for Picture {
    fn kind(&self) -> ConsoleKind {
        ConsoleKind::Graphic
    }

    fn refresh(&self, surface: &mut Surface, _all: bool) -> Refresh {
        *surface = Surface::new(WIDTH, HEIGHT);
        for y in 0..HEIGHT {
            for (x, pixel) in (0..).zip(surface.line_mut(y)) {
                *pixel = colour(x, y);
            }
        }
        Refresh::Resized
    }
}

#[derive(Default)]
struct Typed(Mutex<Vec<InputEvent>>);

impl InputSink for Typed {
    fn input(&self, event: InputEvent) {
        self.0.lock().unwrap().push(event);
    }

    fn is_absolute(&self) -> bool {
        true
    }
}

struct Bench {
    server: Arc<Server>,
    typed: Arc<Typed>,
    port: String,
    _display: Arc<Display>,
}

/// A server that shows the picture at a port of its own.
fn serve() -> Bench {
    let display = Arc::new(Display::new());
    let typed = Arc::new(Typed::default());
    display.set_guest_input(Arc::clone(&typed) as Arc<dyn InputSink>);
    display.add_console("VGA", Arc::new(Picture));
    display.refresh();
    let mut spec = Spec::new(Address::Tcp { host: "127.0.0.1".into(), port: 0, last_port: 0 });
    spec.lossy = std::env::var_os("VNC_LOSSY").is_some();
    let listening = Listening::bind(spec).unwrap();
    let port = listening.endpoints()[0].service();
    let settings = Settings {
        desktop_name: desktop_name(Some("test")),
        keymap: Keymap::load("en-us").unwrap(),
        observer: Arc::new(NoObserver),
    };
    let server = Server::start(listening, &display, settings).unwrap();
    Bench { server, typed, port, _display: display }
}

/// Runs vncdotool; `None` if it is not installed.
fn vncdotool(bench: &Bench, args: &[&str]) -> Option<()> {
    let address = format!("127.0.0.1::{}", bench.port);
    let mut command = Command::new("vncdotool");
    command.args(["-t", "20", "-s", &address]).args(args).stdin(Stdio::null());
    match command.status() {
        Ok(status) => {
            assert!(status.success());
            Some(())
        }
        Err(error) => {
            println!("vncdotool cannot be run ({error}): nothing tested");
            None
        }
    }
}

fn read_png(path: &Path) -> (u32, u32, Vec<u8>) {
    let mut reader = png::Decoder::new(BufReader::new(File::open(path).unwrap())).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!(info.color_type, png::ColorType::Rgb);
    (info.width, info.height, pixels)
}

#[test]
fn vncdotool_captures_the_picture() {
    let bench = serve();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("screen.png");
    if vncdotool(&bench, &["capture", path.to_str().unwrap()]).is_none() {
        return;
    }
    let (width, height, pixels) = read_png(&path);
    assert_eq!((width, height), (WIDTH, HEIGHT));
    let expected: Vec<u8> = (0..HEIGHT)
        .flat_map(|y| (0..WIDTH).flat_map(move |x| colour(x, y).to_be_bytes().into_iter().skip(1)))
        .collect();
    assert!(pixels == expected, "the captured picture differs");
    bench.server.stop();
}

#[test]
fn vncdotool_types_and_points() {
    let bench = serve();
    if vncdotool(&bench, &["type", "aB", "key", "enter", "move", "319", "199", "click", "1", "pause", "0.5"]).is_none()
    {
        return;
    }
    let events = bench.typed.0.lock().unwrap().clone();
    let keys: Vec<(u8, bool)> = events
        .iter()
        .filter_map(|event| match event {
            InputEvent::Key(key) => Some((key.code.unwrap().0, key.down)),
            _ => None,
        })
        .collect();
    let expected = [
        (0x1e, true),
        (0x1e, false),
        (0x2a, true),
        (0x30, true),
        (0x2a, false),
        (0x30, false),
        (0x1c, true),
        (0x1c, false),
    ];
    assert_eq!(keys, expected);
    assert!(events.contains(&InputEvent::MoveTo { x: 0x7fff, y: 0x7fff }));
    assert_eq!(events.iter().filter(|event| matches!(event, InputEvent::Button { .. })).count(), 2);
    bench.server.stop();
}

/// For looking at it with any viewer: `VNC_SERVE_SECONDS=60 cargo test --test vnc_clients serve -- --nocapture`.
#[test]
fn serve_for_a_person() {
    let Some(seconds) = std::env::var("VNC_SERVE_SECONDS").ok().and_then(|text| text.parse::<u32>().ok()) else {
        return;
    };
    let bench = serve();
    println!("serving at 127.0.0.1::{}", bench.port);
    let mut seen = 0;
    for _ in 0..seconds {
        std::thread::sleep(Duration::from_secs(1));
        let events = bench.typed.0.lock().unwrap();
        events.iter().skip(seen).for_each(|event| println!("{event:x?}"));
        seen = events.len();
    }
}
