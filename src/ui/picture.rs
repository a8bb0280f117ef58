//! A surface as a picture file: `screendump`'s formats.

use std::io;

use super::surface::Surface;

/// Portable pixmap (Netpbm's ppm(5), P6), as QEMU writes it.
#[must_use]
pub fn ppm(surface: &Surface) -> Vec<u8> {
    let mut file = format!("P6\n{} {}\n255\n", surface.width(), surface.height()).into_bytes();
    file.extend(rgb(surface));
    file
}

/// Portable network graphics, 8-bit true colour.
///
/// # Errors
/// The encoder fails; it has no reason to.
pub fn png(surface: &Surface) -> io::Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, surface.width(), surface.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let pixels: Vec<u8> = rgb(surface).collect();
    let mut writer = encoder.write_header().map_err(io::Error::from)?;
    writer.write_image_data(&pixels).map_err(io::Error::from)?;
    writer.finish().map_err(io::Error::from)?;
    Ok(file)
}

/// Red, green and blue of each pixel.
fn rgb(surface: &Surface) -> impl Iterator<Item = u8> {
    surface.pixels().iter().flat_map(|pixel| {
        let [blue, green, red, _] = pixel.to_le_bytes();
        [red, green, blue]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Surface {
        let mut surface = Surface::new(3, 2);
        surface.pixels_mut().copy_from_slice(&[0xff_0000, 0x00_ff00, 0x00_00ff, 1, 2, 0x12_3456]);
        surface
    }

    #[test]
    fn a_pixmap_is_a_header_and_red_green_blue() {
        let file = ppm(&sample());
        assert_eq!(file[..11], *b"P6\n3 2\n255\n");
        assert_eq!(file[11..20], [255, 0, 0, 0, 255, 0, 0, 0, 255]);
        assert_eq!(file[26..], [0x12, 0x34, 0x56]);
    }

    #[test]
    fn a_png_decodes_to_the_same_pixels() {
        let file = png(&sample()).unwrap();
        let mut reader = png::Decoder::new(io::Cursor::new(file)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (3, 2));
        assert_eq!(pixels[..info.buffer_size()], ppm(&sample())[11..]);
    }
}
