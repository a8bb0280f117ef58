//! Which accelerator a machine gets.

use std::fs;
use std::sync::Arc;

use super::kvm::IrqChip;
use super::qtest::Qtest;
use super::soft::Soft;
use super::{AccelError, Accelerator, Icount, TcgSettings, kvm};

/// One `-accel name,property=value,...`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AccelRequest {
    /// "kvm", "tcg", "qtest".
    pub name: String,
    /// Its properties, in the order given.
    pub properties: Vec<(String, String)>,
    /// `-icount`, for the software CPU.
    pub icount: Option<Icount>,
}

/// An accelerator, and what the user should know about it.
pub struct Chosen {
    /// The accelerator.
    pub accelerator: Arc<dyn Accelerator>,
    /// Lines for standard error.
    pub warnings: Vec<String>,
}

/// What the accelerators of other versions and of QEMU are called.
const OTHERS: &[&str] = &["xen", "hvf", "whpx", "nvmm", "mshv"];

/// The flag of hardware virtualization in the text of `/proc/cpuinfo`: "vmx" or "svm".
#[must_use]
pub fn virtualization_flag(cpuinfo: &str) -> Option<&'static str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    line.split_whitespace().find_map(|word| match word {
        "vmx" => Some("vmx"),
        "svm" => Some("svm"),
        _ => None,
    })
}

/// Opens the first accelerator of `requests` that works; without requests, KVM or the software CPU, whichever is
/// faster on this host.
///
/// # Errors
/// None of them works; the last one's reason is returned, as QEMU does.
pub fn choose(requests: &[AccelRequest]) -> Result<Chosen, AccelError> {
    if requests.is_empty() {
        return choose_default(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default());
    }
    let mut warnings = Vec::new();
    for (position, request) in requests.iter().enumerate() {
        let last = position + 1 == requests.len();
        match open(request) {
            Ok((accelerator, more)) => {
                warnings.extend(more);
                return Ok(Chosen { accelerator, warnings });
            }
            Err(error) if last => return Err(error),
            Err(error) => warnings.push(error.to_string()),
        }
    }
    Err(AccelError::Unsupported("no accelerator found".to_owned()))
}

/// KVM where the processor's virtualization stands behind it, else the software CPU and one line that says why.
fn choose_default(cpuinfo: &str) -> Result<Chosen, AccelError> {
    let software = |why: String| {
        let accelerator = Arc::new(Soft::new(TcgSettings::default())?);
        let warnings = vec![format!("{why}; the machine runs on the software CPU (-accel tcg)")];
        Ok(Chosen { accelerator, warnings })
    };
    if virtualization_flag(cpuinfo).is_none() {
        return software("this host's CPU shows neither vmx nor svm".to_owned());
    }
    match kvm::open(IrqChip::On) {
        Ok((kvm, warnings)) => Ok(Chosen { accelerator: Arc::new(kvm), warnings }),
        Err(error) => software(error.to_string()),
    }
}

fn open(request: &AccelRequest) -> Result<(Arc<dyn Accelerator>, Vec<String>), AccelError> {
    match request.name.as_str() {
        "kvm" => {
            let irqchip = kvm_properties(&request.properties)?;
            let (kvm, warnings) = kvm::open(irqchip)?;
            Ok((Arc::new(kvm), warnings))
        }
        "tcg" => {
            let settings = TcgSettings::parse(&request.properties, request.icount).map_err(AccelError::Unsupported)?;
            Ok((Arc::new(Soft::new(settings)?), Vec::new()))
        }
        "qtest" => match request.properties.first() {
            None => Ok((Arc::new(Qtest::default()), Vec::new())),
            Some((name, _)) => Err(AccelError::Unsupported(format!("Property 'qtest-accel.{name}' not found"))),
        },
        name if OTHERS.contains(&name) => {
            Err(AccelError::Unsupported(format!("accelerator '{name}' is not supported by this version")))
        }
        name => Err(AccelError::Unsupported(format!("invalid accelerator {name}"))),
    }
}

/// QEMU's properties of its KVM accelerator: which interrupt controllers the kernel is to have.
fn kvm_properties(properties: &[(String, String)]) -> Result<IrqChip, AccelError> {
    let mut irqchip = IrqChip::On;
    for (name, value) in properties {
        let works = match name.as_str() {
            "kernel-irqchip" => {
                irqchip = IrqChip::named(value).ok_or_else(|| {
                    AccelError::Unsupported(format!("Parameter 'kernel-irqchip' does not accept value '{value}'"))
                })?;
                true
            }
            "dirty-ring-size" => value == "0",
            "kvm-shadow-mem"
            | "notify-vmexit"
            | "notify-window"
            | "xen-evtchn-max-pirq"
            | "xen-gnttab-max-frames"
            | "xen-version"
            | "device" => false,
            _ => {
                return Err(AccelError::Unsupported(format!("Property 'kvm-accel.{name}' not found")));
            }
        };
        if !works {
            return Err(AccelError::Unsupported(format!("-accel kvm,{name}={value} is not supported by this version")));
        }
    }
    Ok(irqchip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str, properties: &[(&str, &str)]) -> AccelRequest {
        let properties = properties.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        AccelRequest { name: name.to_owned(), properties, icount: None }
    }

    fn refusal(requests: &[AccelRequest]) -> String {
        choose(requests).err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn an_unknown_accelerator_gets_qemus_text() {
        assert_eq!(refusal(&[request("kwm", &[])]), "invalid accelerator kwm");
    }

    #[test]
    fn accelerators_of_other_versions_are_refused_by_name() {
        assert_eq!(refusal(&[request("xen", &[])]), "accelerator 'xen' is not supported by this version");
    }

    #[test]
    fn settings_of_the_software_cpu_work_or_are_refused_by_name() {
        let settings = [("thread", "single"), ("tb-size", "1"), ("split-wx", "off")];
        let accelerator = choose(&[request("tcg", &settings)]).unwrap().accelerator;
        assert_eq!(accelerator.check_cpu_count(1, 1).unwrap(), [""; 0]);
        assert_eq!(
            accelerator.check_cpu_count(2, 2).unwrap_err().to_string(),
            "-accel tcg,thread=single with more than one CPU is not supported by this version"
        );
    }

    #[test]
    fn an_unknown_property_gets_qemus_text() {
        assert_eq!(refusal(&[request("kvm", &[("foo", "1")])]), "Property 'kvm-accel.foo' not found");
    }

    #[test]
    fn a_property_that_does_not_work_is_refused_by_name() {
        assert_eq!(
            refusal(&[request("kvm", &[("notify-vmexit", "run")])]),
            "-accel kvm,notify-vmexit=run is not supported by this version"
        );
    }

    #[test]
    fn the_virtualization_flag_is_a_whole_word() {
        assert_eq!(virtualization_flag("processor: 0\nflags\t\t: fpu vmx_x svm"), Some("svm"));
        assert_eq!(virtualization_flag("flags : fpu vmx"), Some("vmx"));
        assert_eq!(virtualization_flag("model name : vmx"), None);
    }
}
