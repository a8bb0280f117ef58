//! What `-global` says about the machine's own chips, which no `-device` makes.

use crate::hw::chipset::piix4_pm;
use crate::hw::timer::mc146818::LostTicks;

use super::build::BuildError;
use super::config::{Chipset, Config};
use super::props::Props;

/// Options of chips that every `pc` has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChipOptions {
    /// `PIIX4_PM.disable_s3`, on a Q35 board `ICH9-LPC.disable_s3`, and so on: suspend to RAM is not offered.
    pub disable_s3: u8,
    /// `PIIX4_PM.disable_s4`: suspend to disk is not offered.
    pub disable_s4: u8,
    /// `PIIX4_PM.s4_val`: its sleep type.
    pub s4_type: u8,
    /// `mc146818rtc.lost_tick_policy`, or `-rtc driftfix=`.
    pub rtc_lost_ticks: LostTicks,
    /// `kvm-pit.lost_tick_policy=discard`: ticks of the in-kernel PIT that the guest was too slow for are not delivered
    /// later. `None`: nobody asked.
    pub pit_discards: Option<bool>,
    /// `mch.extended-tseg-mbytes`.
    pub extended_tseg_mib: u16,
    /// `ICH9-LPC.noreboot`: the watchdog's second time-out resets nothing.
    pub tco_no_reboot: bool,
}

impl ChipOptions {
    /// Takes them from a configuration; the values are of their types already.
    ///
    /// # Errors
    /// A policy that the chip does not have.
    pub fn read(config: &Config) -> Result<Self, BuildError> {
        let south = match config.machine.chipset() {
            Chipset::I440fx => "PIIX4_PM",
            Chipset::Q35 => "ICH9-LPC",
        };
        let mut pm = Props::of_globals(south, &config.globals);
        let mut lpc = Props::of_globals("ICH9-LPC", &config.globals);
        let mut mch = Props::of_globals("mch", &config.globals);
        let mut rtc = Props::of_globals("mc146818rtc", &config.globals);
        let mut pit = Props::of_globals("kvm-pit", &config.globals);
        let default = piix4_pm::Options::default();
        Ok(Self {
            disable_s3: pm.u8("disable_s3", default.disable_s3.into())?,
            disable_s4: pm.u8("disable_s4", default.disable_s4.into())?,
            s4_type: pm.u8("s4_val", default.s4_type)?,
            rtc_lost_ticks: match rtc.text("lost_tick_policy") {
                None if config.rtc.slew => LostTicks::Slew,
                None | Some("discard") => LostTicks::Discard,
                Some("slew") => LostTicks::Slew,
                Some("delay") => return Err(BuildError::Text("Invalid lost tick policy.".to_owned())),
                Some(other) => return Err(no_policy("mc146818rtc", other)),
            },
            pit_discards: match pit.text("lost_tick_policy") {
                None => None,
                Some("delay") => Some(false),
                Some("discard") => Some(true),
                Some("slew") => return Err(BuildError::Text("Lost tick policy not supported.".to_owned())),
                Some(other) => return Err(no_policy("kvm-pit", other)),
            },
            extended_tseg_mib: mch.u16("extended-tseg-mbytes", 16)?,
            tco_no_reboot: lpc.flag("noreboot", true)?,
        })
    }
}

fn no_policy(driver: &str, value: &str) -> BuildError {
    BuildError::Text(format!(
        "can't apply global {driver}.lost_tick_policy={value}: Parameter 'lost_tick_policy' does not accept value '{value}'"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::config::GlobalSpec;

    fn read(driver: &str, property: &str, value: &str) -> Result<ChipOptions, BuildError> {
        let global =
            GlobalSpec { driver: driver.into(), property: property.into(), value: value.into(), origin: String::new() };
        ChipOptions::read(&Config { globals: vec![global], ..Config::default() })
    }

    #[test]
    fn globals_reach_the_chips() {
        assert_eq!(read("PIIX4_PM", "disable_s3", "1").unwrap().disable_s3, 1);
        assert_eq!(read("PIIX4_PM", "s4_val", "5").unwrap().s4_type, 5);
        assert_eq!(read("mc146818rtc", "lost_tick_policy", "slew").unwrap().rtc_lost_ticks, LostTicks::Slew);
        assert_eq!(read("kvm-pit", "lost_tick_policy", "discard").unwrap().pit_discards, Some(true));
        assert_eq!(read("kvm-pit", "lost_tick_policy", "delay").unwrap().pit_discards, Some(false));
        assert_eq!(read("VGA", "edid", "on").unwrap().pit_discards, None);
    }

    #[test]
    fn policies_that_a_chip_lacks_are_refused_with_qemus_words() {
        let said = |driver, value| read(driver, "lost_tick_policy", value).unwrap_err().to_string();
        assert_eq!(said("kvm-pit", "slew"), "Lost tick policy not supported.");
        assert_eq!(said("mc146818rtc", "delay"), "Invalid lost tick policy.");
        assert_eq!(
            said("kvm-pit", "foo"),
            "can't apply global kvm-pit.lost_tick_policy=foo: Parameter 'lost_tick_policy' does not accept value 'foo'"
        );
    }
}
