//! Sessions with well-behaved clients.

use super::*;
use crate::ui::vnc::auth::encrypt;
use crate::ui::{KeyCode, MouseButton};

fn key(code: u8, down: bool) -> (Option<u8>, bool) {
    (Some(code), down)
}

fn keys(events: &[InputEvent]) -> Vec<(Option<u8>, bool)> {
    events
        .iter()
        .filter_map(|event| match event {
            InputEvent::Key(KeyEvent { code, down, .. }) => Some((code.map(|code| code.0), *down)),
            _ => None,
        })
        .collect()
}

#[test]
fn version_3_3_has_no_choice_of_security_and_no_result() {
    let bench = Bench::new(&[]);
    let mut client = Client::greet(bench.connect(), b"RFB 003.003\n");
    assert_eq!(client.read(4), [0, 0, 0, 1]);
    client.send(&[1]);
    client.read_server_init();
    assert_eq!(client.name, "QEMU (test)");
    assert_eq!((client.decoder.width, client.height), (100, 60));
}

#[test]
fn version_3_7_chooses_but_gets_no_result_without_a_password() {
    let bench = Bench::new(&[]);
    let mut client = Client::greet(bench.connect(), b"RFB 003.007\n");
    assert_eq!(client.read(2), [1, 1]);
    client.send(&[1, 1]);
    client.read_server_init();
}

#[test]
fn other_versions_count_as_the_nearest() {
    let bench = Bench::new(&[]);
    let mut old = Client::greet(bench.connect(), b"RFB 003.005\n");
    assert_eq!(old.read(4), [0, 0, 0, 1]);
    let mut apple = Client::greet(bench.connect(), b"RFB 003.889\n");
    assert_eq!(apple.read(2), [1, 1]);
    let mut nonsense = Client::greet(bench.connect(), b"GET / HTTP/1");
    assert!(nonsense.is_closed());
}

#[test]
fn the_whole_picture_comes_when_asked_for() {
    let bench = Bench::new(&[]);
    let mut client = bench.client(&[0]);
    client.request_all(false);
    client.update();
    assert!(client.shows(&picture(100, 60)));
}

#[test]
fn zrle_carries_the_same_picture_and_the_first_encoding_wins() {
    let bench = Bench::new(&[]);
    let mut client = bench.client(&[16, 0]);
    client.request_all(false);
    client.update();
    assert!(client.shows(&picture(100, 60)));
    // A raw update would be as long as the picture.
    assert!(client.buffer.len() != 4 + 12 + 100 * 60 * 4);
}

#[test]
fn only_the_tile_that_changed_is_sent() {
    let bench = Bench::new(&[]);
    let mut client = bench.client(&[0]);
    client.request_all(false);
    client.update();
    client.request_all(true);
    let mut changed = picture(100, 60);
    changed.line_mut(20)[40] ^= 1;
    bench.draw(changed.clone());
    assert_eq!(client.update(), [Got::Pixels(Rect { x: 32, y: 16, width: 16, height: 16 })]);
    assert!(client.shows(&changed));
}

#[test]
fn nothing_is_sent_for_a_redraw_of_the_same() {
    let bench = Bench::new(&[]);
    let mut client = bench.client(&[0, -307]);
    client.request_all(false);
    client.update();
    client.request_all(true);
    bench.draw(picture(100, 60));
    // The next thing that comes is the name, not pixels.
    bench.server.set_desktop_name("other");
    assert_eq!(client.update(), [Got::Name("other".into())]);
}

#[test]
fn a_part_can_be_asked_for() {
    let bench = Bench::new(&[]);
    let mut client = bench.client(&[0]);
    client.request_all(false);
    client.update();
    client.request(false, [20, 20, 4, 4]);
    assert_eq!(client.update(), [Got::Pixels(Rect { x: 16, y: 16, width: 16, height: 16 })]);
}

#[test]
fn each_client_has_its_own_view_of_what_changed() {
    let bench = Bench::new(&[]);
    let (mut fast, mut slow) = (bench.client(&[0]), bench.client(&[0]));
    for client in [&mut fast, &mut slow] {
        client.request_all(false);
        client.update();
    }
    let mut surface = picture(100, 60);
    for x in [0, 50] {
        surface.line_mut(0)[x] ^= 1;
        fast.request_all(true);
        bench.draw(surface.clone());
        fast.update();
    }
    slow.request_all(true);
    assert_eq!(slow.update().len(), 2);
    assert!(fast.shows(&surface) && slow.shows(&surface));
}

#[test]
fn a_client_that_can_is_told_of_another_size() {
    let bench = Bench::new(&[]);
    let mut client = bench.client(&[0, -223]);
    client.request_all(false);
    client.update();
    bench.draw(picture(64, 80));
    assert_eq!(client.update(), [Got::Size(64, 80)]);
    client.request_all(true);
    client.update();
    assert!(client.shows(&picture(64, 80)));
}

#[test]
fn the_extended_size_comes_first_of_all_and_answers_wishes() {
    let bench = Bench::new(&[]);
    let mut client = bench.client(&[0, -308, -223]);
    assert_eq!(client.update(), [Got::ExtendedSize { reason: 0, status: 0, width: 100, height: 60 }]);
    let mut wish = vec![251, 0, 3, 32, 2, 88, 1, 0];
    wish.extend([0, 0, 0, 0, 0, 0, 0, 0, 3, 32, 2, 88, 0, 0, 0, 0]);
    client.send(&wish);
    assert_eq!(client.update(), [Got::ExtendedSize { reason: 1, status: 4, width: 100, height: 60 }]);
    assert_eq!(*bench.adapter.wish.lock().unwrap(), Some((800, 600)));
    bench.draw(picture(800, 600));
    assert_eq!(client.update(), [Got::ExtendedSize { reason: 0, status: 0, width: 800, height: 600 }]);
}

#[test]
fn a_client_that_cannot_follow_keeps_its_size_and_sees_black_outside() {
    let bench = Bench::new(&[]);
    let mut client = bench.client(&[0]);
    client.request_all(false);
    client.update();
    bench.draw(picture(40, 200));
    client.request_all(true);
    client.update();
    assert_eq!(client.decoder.width, 100);
    assert_eq!(client.decoder.pixels[100 + 39], picture(40, 200).line(1)[39]);
    assert_eq!(client.decoder.pixels[100 + 40], 0);
}

#[test]
fn a_colour_map_client_gets_the_map_before_pixels() {
    let bench = Bench::new(&[]);
    let mut client = bench.client(&[0]);
    let format = Format::parse([8, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    client.set_format(format);
    client.request_all(false);
    let map = client.read(6 + 256 * 6);
    assert_eq!(map[..6], [1, 0, 0, 0, 1, 0]);
    client.update();
    let pixel = usize::from(client.decoder.pixels[1].to_le_bytes()[0]);
    // The picture's second pixel is 010507h: black in two and three bits.
    assert_eq!(map[6 + pixel * 6..12 + pixel * 6], [0; 6]);
}

#[test]
fn sixteen_bit_pixels_are_half_as_long() {
    let bench = Bench::new(&[]);
    let mut client = bench.client(&[0]);
    let mut format = [16, 16, 0, 1, 0, 31, 0, 63, 0, 31, 11, 5, 0, 0, 0, 0];
    client.set_format(Format::parse(format).unwrap());
    client.request_all(false);
    client.update();
    // The third pixel is 020a0eh.
    assert_eq!(client.decoder.pixels[2], 0x0a >> 2 << 5 | 0x0e >> 3);
    format[2] = 1;
    client.set_format(Format::parse(format).unwrap());
    client.request_all(false);
    client.update();
    assert_eq!(client.decoder.pixels[2], 0x0a >> 2 << 5 | 0x0e >> 3);
}

#[test]
fn a_password_is_asked_for_and_checked() {
    let bench = Bench::new(&[("password", "on")]);
    assert_eq!(bench.server.info().auth, "vnc");
    bench.server.set_password(Some("secret")).unwrap();
    let mut client = Client::greet(bench.connect(), b"RFB 003.008\n");
    assert_eq!(client.read(2), [1, 2]);
    client.send(&[2]);
    let challenge = client.read(16).try_into().unwrap();
    client.send(&encrypt(b"secret", challenge));
    assert_eq!(client.read(4), [0; 4]);
    client.send(&[1]);
    client.read_server_init();
}

#[test]
fn a_wrong_password_is_refused_with_a_reason_in_3_8() {
    let bench = Bench::new(&[("password", "on")]);
    bench.server.set_password(Some("secret")).unwrap();
    let mut client = Client::greet(bench.connect(), b"RFB 003.008\n");
    client.read(2);
    client.send(&[2]);
    let challenge = client.read(16).try_into().unwrap();
    client.send(&encrypt(b"Secret", challenge));
    assert_eq!(client.read(8), [0, 0, 0, 1, 0, 0, 0, 21]);
    assert_eq!(client.read(21), b"Authentication failed");
    assert!(client.is_closed());
}

#[test]
fn without_a_password_set_nobody_comes_in() {
    let bench = Bench::new(&[("password", "on")]);
    let mut client = Client::greet(bench.connect(), b"RFB 003.003\n");
    assert_eq!(client.read(4), [0, 0, 0, 2]);
    let challenge = client.read(16).try_into().unwrap();
    client.send(&encrypt(b"", challenge));
    assert_eq!(client.read(4), [0, 0, 0, 1]);
    assert!(client.is_closed());
}

#[test]
fn a_password_needs_the_option() {
    let error = Bench::new(&[]).server.set_password(Some("x")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "If you want use passwords please enable password auth using '-vnc ${dpy},password'."
    );
}

#[test]
fn a_client_that_wants_to_be_alone_ends_the_others() {
    let bench = Bench::new(&[]);
    let mut first = bench.client(&[0]);
    let mut alone = Client::greet(bench.connect(), b"RFB 003.003\n");
    alone.read(4);
    alone.send(&[0]);
    alone.read_server_init();
    assert!(first.is_closed());
    let mut third = Client::greet(bench.connect(), b"RFB 003.003\n");
    third.read(4);
    third.send(&[1]);
    assert!(third.is_closed());
}

#[test]
fn force_shared_refuses_those_who_want_to_be_alone() {
    let bench = Bench::new(&[("share", "force-shared")]);
    let mut alone = Client::greet(bench.connect(), b"RFB 003.003\n");
    alone.read(4);
    alone.send(&[0]);
    assert!(alone.is_closed());
}

#[test]
fn there_are_not_more_clients_than_connections() {
    let bench = Bench::new(&[("connections", "1")]);
    let _first = bench.client(&[0]);
    let mut second = Client::greet(bench.connect(), b"RFB 003.003\n");
    second.read(4);
    second.send(&[1]);
    assert!(second.is_closed());
}

#[test]
fn keys_reach_the_guest_by_keysym_and_by_code() {
    let bench = Bench::new(&[]);
    let mut client = bench.client(&[0, -258]);
    assert_eq!(client.update(), [Got::ExtendedKey]);
    client.key(true, 0x61);
    client.key(false, 0x61);
    client.send(&[255, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xc8]);
    client.send(&[255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc8]);
    let events = bench.guest.events.wait(4);
    assert_eq!(keys(&events), [key(0x1e, true), key(0x1e, false), key(0xc8, true), key(0xc8, false)]);
}

#[test]
fn keys_and_buttons_are_released_when_their_client_goes() {
    let bench = Bench::new(&[]);
    let mut client = bench.client(&[0]);
    client.key(true, 0xffe3);
    client.send(&[5, 1, 0, 0, 0, 0]);
    bench.guest.events.wait(3);
    drop(client);
    let events = bench.guest.events.wait(5);
    let released = KeyEvent { code: Some(KeyCode(0x1d)), keysym: 0xffe3, down: false };
    assert_eq!(events[3..], [InputEvent::Key(released), InputEvent::Button { button: MouseButton::Left, down: false }]);
}

#[test]
fn the_pointer_mode_is_told_and_used() {
    let bench = Bench::new(&[]);
    let mut client = bench.client(&[0, -257]);
    assert_eq!(client.update(), [Got::PointerMode { absolute: true }]);
    client.send(&[5, 0, 0, 99, 0, 59]);
    assert_eq!(bench.guest.events.wait(1), [InputEvent::MoveTo { x: 0x7fff, y: 0x7fff }]);
    *bench.guest.absolute.lock().unwrap() = false;
    bench.display.pointer_mode_changed(false);
    assert_eq!(client.update(), [Got::PointerMode { absolute: false }]);
    client.send(&[5, 0, 0x80, 0x02, 0x7f, 0xfe]);
    assert_eq!(bench.guest.events.wait(2)[1], InputEvent::MoveBy { dx: 3, dy: -1 });
}

#[test]
fn lights_are_told_to_those_who_care() {
    let bench = Bench::new(&[]);
    let mut client = bench.client(&[0, -261, -307]);
    client.request_all(false);
    client.update();
    bench.server.set_leds(crate::ui::Leds { scroll: false, num: true, caps: true });
    assert_eq!(client.update(), [Got::Leds(6)]);
}

#[test]
fn a_pointer_image_comes_with_its_mask_or_with_alpha_and_goes_again() {
    let bench = Bench::new(&[]);
    let cursor = Cursor { width: 2, height: 1, hot_x: 1, hot_y: 0, pixels: vec![0xff01_0203, 0x8010_2030] };
    let (mut rich, mut alpha) = (bench.client(&[0, -239]), bench.client(&[0, -239, -314]));
    let wait_for_encodings = |client: &mut Client| {
        client.request_all(false);
        client.update();
    };
    wait_for_encodings(&mut rich);
    wait_for_encodings(&mut alpha);
    bench.server.cursor_changed(Some(&cursor));
    let bytes = vec![3, 2, 1, 0xff, 0x30, 0x20, 0x10, 0x80, 0xc0];
    assert_eq!(rich.update(), [Got::Cursor { hot: (1, 0), size: (2, 1), bytes }]);
    let bytes = vec![0, 0, 0, 0, 1, 2, 3, 0xff, 8, 16, 24, 0x80];
    assert_eq!(alpha.update(), [Got::Cursor { hot: (1, 0), size: (2, 1), bytes }]);
    bench.server.cursor_changed(None);
    assert_eq!(rich.update(), [Got::Cursor { hot: (0, 0), size: (0, 0), bytes: vec![] }]);
}

#[test]
fn power_control_is_offered_only_with_its_option() {
    let bench = Bench::new(&[("power-control", "on")]);
    let mut client = bench.client(&[0, -309]);
    assert_eq!(client.read(4), [250, 0, 1, 1]);
    client.send(&[250, 0, 1, 3]);
    assert_eq!(bench.heard.wait(4)[3], Heard::Power(PowerAction::Reboot));
    let without = Bench::new(&[]);
    let mut client = without.client(&[0, -309]);
    client.send(&[250, 0, 1, 3]);
    client.request_all(false);
    client.update();
    assert_eq!(without.heard.wait(3).len(), 3);
}

#[test]
fn monitors_see_clients_come_and_go() {
    let bench = Bench::new(&[]);
    assert!(!bench.display.is_watched());
    let client = bench.client(&[0]);
    assert_eq!(bench.heard.wait(3), [Heard::Connected, Heard::Watched, Heard::Initialized]);
    assert!(bench.display.is_watched());
    let info = bench.server.info();
    assert_eq!((info.id.as_str(), info.auth, info.clients.len()), ("default", "none", 1));
    assert_eq!(info.clients[0].peer.service(), client.stream.local_addr().unwrap().port().to_string());
    drop(client);
    assert_eq!(bench.heard.wait(4)[3], Heard::Disconnected);
    assert!(!bench.display.is_watched());
    assert_eq!(bench.server.info().clients, []);
}

#[test]
fn disconnecting_all_closes_every_client() {
    let bench = Bench::new(&[]);
    let (mut one, mut two) = (bench.client(&[0]), bench.client(&[0]));
    bench.server.disconnect_all();
    assert!(one.is_closed() && two.is_closed());
}

#[test]
fn a_text_console_gets_no_keys_that_nobody_pressed() {
    let bench = Bench::of_kind(&[], ConsoleKind::Text);
    let mut client = bench.client(&[0]);
    client.key(true, 0x41);
    client.request_all(false);
    client.update();
    assert!(client.shows(&picture(100, 60)));
}

#[test]
fn a_stopped_server_has_given_up_its_port() {
    let bench = Bench::new(&[]);
    let port = bench.server.info().listeners[0].service().parse().unwrap();
    let mut client = bench.client(&[0]);
    bench.server.stop();
    assert!(client.is_closed());
    let again = Spec::new(Address::Tcp { host: "127.0.0.1".into(), port, last_port: port });
    assert!(Listening::bind(again).is_ok());
}

#[test]
fn a_lossy_picture_is_mended_when_nothing_else_changes() {
    let bench = Bench::new(&[("lossy", "on")]);
    let mut client = bench.client(&[7, -32]);
    client.request_all(false);
    client.update();
    assert_eq!(client.decoder.jpegs, 1);
    assert!(!client.shows(&picture(100, 60)));
    client.request_all(true);
    client.update();
    assert!(client.shows(&picture(100, 60)));
}

#[test]
fn without_lossy_no_quality_makes_losses() {
    let bench = Bench::new(&[]);
    let mut client = bench.client(&[7, -32]);
    client.request_all(false);
    client.update();
    assert!(client.shows(&picture(100, 60)));
}

#[test]
fn a_new_client_sees_what_changed_while_nobody_watched() {
    let bench = Bench::new(&[]);
    *bench.adapter.next.lock().unwrap() = picture(80, 90);
    let mut client = bench.client(&[0]);
    assert_eq!((client.decoder.width, client.height), (80, 90));
    client.request_all(false);
    client.update();
    assert!(client.shows(&picture(80, 90)));
}
