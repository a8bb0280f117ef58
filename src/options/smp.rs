//! `-smp`: counts given and counts computed.

use serde_json::{Map, Value};

use super::low::Low;
use super::stop::{Step, Stop};
use crate::cpu::Topology;
use crate::keyval::tree;
use crate::keyval::value::{ValueError, parse_integer};
use crate::machine::config::Smp;

/// The keys, in the order in which QEMU looks at them.
const KEYS: [&str; 10] =
    ["cpus", "drawers", "books", "sockets", "dies", "clusters", "modules", "cores", "threads", "maxcpus"];

/// What other machines have and the PC does not.
const FOREIGN: [&str; 3] = ["clusters", "books", "drawers"];

/// Its help.
fn help() -> String {
    let mut keys: Vec<String> = KEYS.iter().map(|key| format!("  {key}=<num>\n")).collect();
    keys.sort();
    format!("smp-opts options:\n{}", keys.concat())
}

pub(super) fn read(low: &mut Low<'_>, text: &str) -> Step {
    let tree = tree::parse(text, Some("cpus"))?;
    if tree.help {
        return Err(Stop::Print(help(), 0));
    }
    tree::merge(&mut low.smp, tree.map);
    Ok(())
}

/// What a machine allows.
pub(super) struct Limits<'a> {
    /// The machine's name, for messages.
    pub(super) machine: &'a str,
    /// CPUs at most.
    pub(super) max_cpus: u32,
    /// Whether missing counts become sockets (machines before 6.2) or cores.
    pub(super) prefer_sockets: bool,
}

/// The counts, 0 for "not given".
#[derive(Clone, Copy, Default)]
struct Given {
    cpus: u32,
    max_cpus: u32,
    sockets: u32,
    dies: u32,
    modules: u32,
    cores: u32,
    threads: u32,
}

/// The topology that `smp` describes, and a warning where it had to be bent.
pub(super) fn resolve(smp: &Map<String, Value>, limits: &Limits<'_>) -> Step<(Smp, Option<String>)> {
    let given = counts(smp).map_err(Stop::anywhere)?;
    let (resolved, warning) = complete(given, limits.prefer_sockets)?;
    check(resolved, limits)?;
    Ok((resolved, warning))
}

fn counts(smp: &Map<String, Value>) -> Step<Given> {
    let mut given = Given::default();
    for key in KEYS {
        let Some(value) = smp.get(key) else { continue };
        let Some(text) = value.as_str() else {
            return Err(Stop::here(format!("Parameters 'smp.{key}.*' are unexpected")));
        };
        // QEMU's counts are 32 bits wide, of either sign.
        let count = parse_integer(&format!("smp.{key}"), text)?;
        if count == 0 {
            return Err(Stop::here("Invalid CPU topology: CPU topology parameters must be greater than zero"));
        }
        #[expect(clippy::cast_possible_truncation, reason = "QEMU's counts wrap the same way")]
        let count = count as u32;
        match key {
            "cpus" => given.cpus = count,
            "maxcpus" => given.max_cpus = count,
            "sockets" => given.sockets = count,
            "dies" => given.dies = count,
            "modules" => given.modules = count,
            "cores" => given.cores = count,
            "threads" => given.threads = count,
            _ if count > 1 => {
                return Err(Stop::here(format!("{key} > 1 not supported by this machine's CPU topology")));
            }
            _ => {}
        }
    }
    match smp.keys().find(|key| !KEYS.contains(&key.as_str())) {
        Some(key) => Err(ValueError::unexpected("smp.", key, KEYS.into_iter().filter(|k| !FOREIGN.contains(k))).into()),
        None => Ok(given),
    }
}

fn or_one(count: u32) -> u32 {
    count.max(1)
}

fn product(counts: &[u32]) -> u32 {
    counts.iter().fold(1, |all, &n| all.wrapping_mul(n))
}

/// `maxcpus` split over the levels that are known.
fn share(max_cpus: u32, others: &[u32]) -> u32 {
    max_cpus.checked_div(product(others)).unwrap_or(0)
}

/// QEMU's completion of missing counts, level by level.
fn complete(given: Given, prefer_sockets: bool) -> Step<(Smp, Option<String>)> {
    let Given { mut cpus, mut max_cpus, mut sockets, mut cores, mut threads, .. } = given;
    let explicit_max = given.max_cpus > 0;
    let (dies, modules) = (or_one(given.dies), or_one(given.modules));
    if cpus == 0 && max_cpus == 0 {
        (sockets, cores, threads) = (or_one(sockets), or_one(cores), or_one(threads));
    } else {
        if max_cpus == 0 {
            max_cpus = cpus;
        }
        if prefer_sockets && sockets == 0 {
            (cores, threads) = (or_one(cores), or_one(threads));
            sockets = share(max_cpus, &[dies, modules, cores, threads]);
        } else if cores == 0 {
            (sockets, threads) = (or_one(sockets), or_one(threads));
            cores = share(max_cpus, &[sockets, dies, modules, threads]);
        } else if sockets == 0 {
            threads = or_one(threads);
            sockets = share(max_cpus, &[dies, modules, cores, threads]);
        }
        if threads == 0 {
            threads = share(max_cpus, &[sockets, dies, modules, cores]);
        }
    }
    let mut total = product(&[sockets, dies, modules, cores, threads]);
    if max_cpus == 0 {
        max_cpus = total;
    }
    if cpus == 0 {
        cpus = max_cpus;
    }
    let mut warning = None;
    // `sockets=1,cores=2,threads=1,maxcpus=8`: QEMU took this up to 6.1, and people's notes have it. The sockets that
    // are missing can only be filled later, so the guest sees what was asked for.
    if explicit_max && total > 0 && total < max_cpus && max_cpus.is_multiple_of(total) && cpus <= max_cpus {
        sockets = sockets.saturating_mul(max_cpus / total);
        total = product(&[sockets, dies, modules, cores, threads]);
        warning = Some(format!("-smp: maxcpus ({max_cpus}) is more than the sockets hold; using sockets={sockets}"));
    }
    let resolved = Smp { cpus, max_cpus, levels: Topology { sockets, dies, modules, cores, threads } };
    let levels =
        format!("sockets ({sockets}) * dies ({dies}) * modules ({modules}) * cores ({cores}) * threads ({threads})");
    if total != max_cpus {
        return Err(Stop::nowhere(format!(
            "Invalid CPU topology: product of the hierarchy must match maxcpus: {levels} != maxcpus ({max_cpus})"
        )));
    }
    if max_cpus < cpus {
        return Err(Stop::nowhere(format!(
            "Invalid CPU topology: maxcpus must be equal to or greater than smp: {levels} == maxcpus ({max_cpus}) < \
             smp_cpus ({cpus})"
        )));
    }
    Ok((resolved, warning))
}

fn check(smp: Smp, limits: &Limits<'_>) -> Step {
    if smp.max_cpus > limits.max_cpus {
        return Err(Stop::nowhere(format!(
            "Invalid SMP CPUs {}. The max CPUs supported by machine '{}' is {}",
            smp.max_cpus.cast_signed(),
            limits.machine,
            limits.max_cpus
        )));
    }
    Ok(())
}
