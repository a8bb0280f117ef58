//! The sending thread of a client: picks up what is out of date, encodes it and writes it. A client that stops reading
//! stops this thread and nobody else; what changes meanwhile is only marked.

use std::io::{self, Write};
use std::sync::Arc;

use crate::ui::{Cursor, Rect};

use super::client::{Client, Features, SizeNotice, Work};
use super::encode::{Encoder, put_header};
use super::message::encoding;
use super::server::Server;

/// Bytes that are gathered before they are written.
const CHUNK: usize = 64 << 10;
/// Larger pointers are not pointers.
const MAX_CURSOR_SIDE: u32 = 512;

/// Sends until the client is closed.
pub(super) fn run(server: &Server, client: &Arc<Client>) {
    let mut writer = Writer { server, client, encoder: None, pixels: Vec::new(), out: Vec::new(), cursor_shown: false };
    while let Some(work) = client.next_work() {
        if writer.send(&work).is_err() {
            client.close();
            return;
        }
    }
}

struct Writer<'a> {
    server: &'a Server,
    client: &'a Client,
    encoder: Option<Encoder>,
    pixels: Vec<u32>,
    out: Vec<u8>,
    /// Whether the client draws a pointer of ours.
    cursor_shown: bool,
}

impl Writer<'_> {
    fn send(&mut self, work: &Work) -> io::Result<()> {
        let mut encoder = self.encoder.take().unwrap_or_else(|| Encoder::new(work.wish));
        encoder.set_wish(work.wish);
        let result = self.send_with(work, &mut encoder);
        self.encoder = Some(encoder);
        result
    }

    fn send_with(&mut self, work: &Work, encoder: &mut Encoder) -> io::Result<()> {
        if work.notices.colour_map {
            self.out.extend_from_slice(&work.wish.format.colour_map_message());
        }
        if work.notices.xvp {
            // Version 1 of power control is there.
            self.out.extend_from_slice(&[250, 0, 1, 1]);
        }
        for notice in [work.notices.size_answer, work.notices.size].into_iter().flatten() {
            self.put_size(notice, work);
        }
        let extras = self.extras(work, encoder);
        let count = extras.len() + work.rects.len();
        if count > 0 {
            put_update_header(count, &mut self.out);
            self.out.extend(extras.into_iter().flatten());
        }
        let mut lossy = Vec::new();
        for rect in &work.rects {
            self.server.copy_pixels(*rect, &mut self.pixels);
            if !encoder.put_rect(*rect, &self.pixels, &mut self.out) {
                lossy.push(*rect);
            }
            if self.out.len() >= CHUNK {
                self.flush()?;
            }
        }
        if !lossy.is_empty() {
            self.client.sent_with_losses(&lossy);
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        (&self.client.stream).write_all(&self.out)?;
        self.out.clear();
        self.out.shrink_to(2 * CHUNK);
        Ok(())
    }

    /// An update that says nothing but the picture's size.
    fn put_size(&mut self, notice: SizeNotice, work: &Work) {
        let (width, height) = work.size;
        if work.features.extended_desktop_size {
            put_update_header(1, &mut self.out);
            let place = Rect { x: notice.reason.into(), y: notice.status.into(), width, height };
            put_header(place, encoding::EXTENDED_DESKTOP_SIZE, &mut self.out);
            // One screen, number 0, that fills the picture.
            self.out.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            for side in [width, height] {
                self.out.extend_from_slice(&u16::try_from(side).unwrap_or(u16::MAX).to_be_bytes());
            }
            self.out.extend_from_slice(&[0; 4]);
        } else if work.features.desktop_size {
            put_update_header(1, &mut self.out);
            put_header(Rect { x: 0, y: 0, width, height }, encoding::DESKTOP_SIZE, &mut self.out);
        }
    }

    /// The pseudo-rectangles that are due.
    fn extras(&mut self, work: &Work, encoder: &Encoder) -> Vec<Vec<u8>> {
        let (width, height) = work.size;
        let all = Rect { x: 0, y: 0, width, height };
        let header = |rect: Rect, number: i32| {
            let mut out = Vec::new();
            put_header(rect, number, &mut out);
            out
        };
        let Features { extended_key, pointer_mode, led_state, desktop_name, .. } = work.features;
        let notices = work.notices;
        let mut extras = Vec::new();
        if notices.extended_key && extended_key {
            extras.push(header(all, encoding::EXTENDED_KEY));
        }
        if notices.pointer_mode && pointer_mode {
            let absolute = u32::from(self.server.is_absolute());
            extras.push(header(Rect { x: absolute, ..all }, encoding::POINTER_MODE));
        }
        if notices.led_state
            && led_state
            && let Some(leds) = self.server.leds()
        {
            let mut out = header(Rect { x: 0, y: 0, width: 1, height: 1 }, encoding::LED_STATE);
            out.push(leds.bits());
            extras.push(out);
        }
        if notices.desktop_name && desktop_name {
            let name = self.server.desktop_name();
            let mut out = header(Rect::default(), encoding::DESKTOP_NAME);
            out.extend_from_slice(&u32::try_from(name.len()).unwrap_or(0).to_be_bytes());
            out.extend_from_slice(name.as_bytes());
            extras.push(out);
        }
        if notices.cursor {
            extras.extend(self.cursor(work.features, encoder));
        }
        extras
    }

    /// The pointer's picture, if the client draws pointers and there is one or was one.
    fn cursor(&mut self, features: Features, encoder: &Encoder) -> Option<Vec<u8>> {
        let cursor = self.server.cursor().filter(|cursor| is_sound(cursor));
        if cursor.is_none() && !std::mem::replace(&mut self.cursor_shown, false) {
            return None;
        }
        self.cursor_shown = cursor.is_some();
        let none = Cursor { width: 0, height: 0, hot_x: 0, hot_y: 0, pixels: Vec::new() };
        let cursor = cursor.as_deref().unwrap_or(&none);
        let place = Rect { x: cursor.hot_x, y: cursor.hot_y, width: cursor.width, height: cursor.height };
        let mut out = Vec::new();
        if features.alpha_cursor {
            put_header(place, encoding::ALPHA_CURSOR, &mut out);
            out.extend_from_slice(&encoding::RAW.to_be_bytes());
            out.extend(cursor.pixels.iter().flat_map(|pixel| premultiplied(*pixel)));
        } else if features.rich_cursor {
            put_header(place, encoding::RICH_CURSOR, &mut out);
            encoder.translator().put(&cursor.pixels, &mut out);
            for line in cursor.pixels.chunks_exact(cursor.width.max(1) as usize) {
                for eight in line.chunks(8) {
                    let opaque = eight.iter().enumerate().filter(|(_, pixel)| **pixel >> 24 >= 128);
                    out.push(opaque.fold(0, |byte, (place, _)| byte | 0x80 >> place));
                }
            }
        } else {
            return None;
        }
        Some(out)
    }
}

fn put_update_header(rects: usize, out: &mut Vec<u8>) {
    // Tile maps give less than 65536 rectangles, see `tiles`.
    let [high, low] = u16::try_from(rects).unwrap_or(u16::MAX).to_be_bytes();
    out.extend_from_slice(&[0, 0, high, low]);
}

/// Whether a pointer's picture is as large as it says, and small enough.
fn is_sound(cursor: &Cursor) -> bool {
    cursor.width <= MAX_CURSOR_SIDE
        && cursor.height <= MAX_CURSOR_SIDE
        && cursor.pixels.len() == (cursor.width * cursor.height) as usize
}

/// Red, green, blue and alpha, the colours already multiplied by alpha.
fn premultiplied(pixel: u32) -> [u8; 4] {
    let [alpha, red, green, blue] = pixel.to_be_bytes();
    let scale = |value: u8| u8::try_from(u32::from(value) * u32::from(alpha) / 255).unwrap_or(u8::MAX);
    [scale(red), scale(green), scale(blue), alpha]
}
