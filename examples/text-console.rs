//! Development tool: `text-console OUT.png [COLUMNS ROWS] < OUTPUT` draws what a text console shows of a program's
//! output.

use std::env;
use std::fs;
use std::io::{self, Read};

use anyhow::Result;
use dromaius::ui::text::{TextConsole, TextSize};
use dromaius::ui::{ConsoleSource, Surface, picture};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (out, size) = match arguments.as_slice() {
        [out] => (out, TextSize::default()),
        [out, columns, rows] => (out, TextSize::cells(columns.parse()?, rows.parse()?)),
        _ => anyhow::bail!("usage: text-console OUT.png [COLUMNS ROWS] < OUTPUT"),
    };
    let console = TextConsole::new(size, Some("serial0"), Box::new(|_| ()));
    let mut output = Vec::new();
    io::stdin().read_to_end(&mut output)?;
    console.write(&output);
    let mut surface = Surface::new(1, 1);
    console.refresh(&mut surface, true);
    fs::write(out, picture::png(&surface)?)?;
    Ok(())
}
