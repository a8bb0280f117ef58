//! Processors compared with those that QEMU 10.0.2 made on one host, and what is refused.

use super::*;

/// The table of KVM_GET_SUPPORTED_CPUID on the host where `golden/kvm.txt` was recorded (strace of QEMU).
fn host() -> HostCpu {
    let table: Vec<_> = include_str!("golden/host.txt").lines().map(row).collect();
    let native = |function: u32, index: u32| match (function, index) {
        (7, 0) => [0, 1 << 9, 0, 1 << 4],
        (7, 1) => [7 << 10, 0, 0, 0],
        (0x8000_0002, _) => [0x6574_6e49, 0x2952_286c, 0x6f65_5820, 0x2952_286e].map(|_: u32| 0),
        _ => [0; 4],
    };
    HostCpu::kvm(table, native, true, 0)
}

fn row(line: &str) -> CpuidLeaf {
    let (key, values) = line.split_once(": ").unwrap();
    let (function, index) = key.split_once('/').unwrap();
    let hex = |text: &str| u32::from_str_radix(text, 16).unwrap();
    let values: Vec<u32> = values.split(' ').map(hex).collect();
    let index = (index != "-").then(|| hex(index));
    CpuidLeaf { function: hex(function), index, eax: values[0], ebx: values[1], ecx: values[2], edx: values[3] }
}

fn topology(text: &str) -> Topology {
    let mut topology = Topology { sockets: 0, dies: 1, modules: 1, cores: 0, threads: 0 };
    let mut cpus = 1;
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let (key, value) = item.split_once('=').unwrap_or(("cpus", item));
        let value = value.parse().unwrap();
        match key {
            "cpus" => cpus = value,
            "sockets" => topology.sockets = value,
            "dies" => topology.dies = value,
            "modules" => topology.modules = value,
            "cores" => topology.cores = value,
            "threads" => topology.threads = value,
            _ => panic!("{key}"),
        }
    }
    let other = topology.dies * topology.modules;
    topology.threads = topology.threads.max(1);
    if topology.cores == 0 {
        topology.cores = (cpus / (topology.sockets.max(1) * other * topology.threads)).max(1);
    }
    if topology.sockets == 0 {
        topology.sockets = (cpus / (other * topology.cores * topology.threads)).max(1);
    }
    topology
}

/// The processor that `-cpu text` means.
fn resolved(text: &str, topology: Topology, host: &HostCpu) -> Result<Resolved, CpuError> {
    let mut items = text.split(',');
    let name = items.next().unwrap();
    let properties: Vec<_> = items
        .map(|item| match (item.strip_prefix('+'), item.strip_prefix('-'), item.split_once('=')) {
            (Some(on), _, _) => (on.to_owned(), "on".to_owned()),
            (_, Some(off), _) => (off.to_owned(), "off".to_owned()),
            (_, _, Some((key, value))) => (key.to_owned(), value.to_owned()),
            _ => (item.to_owned(), "on".to_owned()),
        })
        .collect();
    resolve(Some(name), &properties, topology, host)
}

fn model(text: &str) -> CpuModel {
    resolved(text, Topology::default(), &HostCpu::default()).unwrap().model
}

fn refusal(text: &str) -> String {
    resolved(text, Topology::default(), &host()).map(|r| format!("{r:?}")).unwrap_err().to_string()
}

/// What both sides of a comparison leave out: rows that are zero without saying anything, and the brand of the host,
/// which the recording's `native` did not keep.
fn tidy(mut rows: Vec<CpuidLeaf>, is_host: bool) -> Vec<CpuidLeaf> {
    rows.retain(|row| row.index.is_some() || (row.eax, row.ebx, row.ecx, row.edx) != (0, 0, 0, 0));
    rows.retain(|row| !is_host || !(0x8000_0002..=0x8000_0004).contains(&row.function));
    rows.iter_mut().filter(|row| row.function == 0x8000_0000).for_each(|row| row.index = None);
    rows.sort_by_key(|row| (row.function, row.index));
    rows
}

#[test]
fn tables_are_those_of_qemu() {
    let host = host();
    for case in include_str!("golden/kvm.txt").split("cpu ").skip(1) {
        let mut lines = case.lines();
        let (cpu, smp) = (lines.next().unwrap(), lines.next().unwrap().trim_start_matches("smp").trim());
        let index = lines.next().unwrap().strip_prefix("index ").unwrap().parse().unwrap();
        let golden = tidy(lines.map(row).collect(), cpu.starts_with("host") || cpu.starts_with("max"));
        let model = resolved(cpu, topology(smp), &host).unwrap().model;
        let ours = tidy(model.cpuid(index, 2_300_000), cpu.starts_with("host") || cpu.starts_with("max"));
        for (ours, golden) in ours.iter().zip(&golden) {
            assert_eq!(format!("{ours:x?}"), format!("{golden:x?}"), "-cpu {cpu} -smp {smp}");
        }
        assert_eq!(ours.len(), golden.len(), "-cpu {cpu} -smp {smp}");
    }
}

#[test]
fn every_name_that_the_help_lists_resolves() {
    for (name, _) in model_names() {
        assert!(resolve(Some(&name), &[], Topology::default(), &host()).is_ok(), "{name}");
    }
}

#[test]
fn what_the_host_lacks_is_dropped_with_qemus_warning() {
    let resolved = resolved("qemu64,+pcid", Topology::default(), &host()).unwrap();
    assert_eq!(
        resolved.warnings,
        [
            "host doesn't support requested feature: CPUID.01H:ECX.pni [bit 0]",
            "host doesn't support requested feature: CPUID.01H:ECX.pcid [bit 17]",
        ]
    );
    assert!(!resolved.model.has("pni"));
}

#[test]
fn check_off_is_silent_and_enforce_fails() {
    assert!(resolved("qemu64,check=off", Topology::default(), &host()).unwrap().warnings.is_empty());
    assert_eq!(
        refusal("qemu64,enforce"),
        "warning: host doesn't support requested feature: CPUID.01H:ECX.pni [bit 0]\n\
         Host doesn't support requested features"
    );
}

#[test]
fn unknown_names_get_qemus_text_and_the_nearest() {
    assert_eq!(refusal("Haswel"), "unable to find CPU model 'Haswel'\nDid you mean 'Haswell'?");
    assert_eq!(refusal("qemu64,frobnicate=1"), "Property 'qemu64-x86_64-cpu.frobnicate' not found");
    assert_eq!(refusal("qemu64,+see2"), "Property 'qemu64-x86_64-cpu.see2' not found\nDid you mean 'sse2'?");
    assert_eq!(
        refusal("Haswell,migratable=off").lines().next(),
        Some("Property 'Haswell-x86_64-cpu.migratable' not found")
    );
}

#[test]
fn values_that_do_not_fit_get_qemus_text() {
    assert_eq!(refusal("qemu64,family=1000"), "parameter 'family' can be at most 270");
    assert_eq!(refusal("qemu64,family=foo"), "Parameter 'family' expects uint64");
    assert_eq!(refusal("qemu64,sse=foo"), "Parameter 'sse' expects 'on' or 'off'");
    assert_eq!(refusal("qemu64,vendor=abc"), "value of property 'vendor' must consist of exactly 12 characters");
    assert_eq!(refusal("qemu64,phys-bits=10"), "phys-bits should be between 32 and 52  (but is 10)");
    assert_eq!(refusal("qemu64,tsc-frequency=1G"), "Parameter 'tsc-frequency' expects int64");
}

#[test]
fn what_this_version_lacks_is_refused_by_name() {
    assert_eq!(refusal("qemu64,hv-time"), "-cpu property 'hv-time=on' is not supported by this version");
    assert_eq!(refusal("qemu64,vmx-ept=on"), "-cpu property 'vmx-ept=on' is not supported by this version");
    assert!(resolved("qemu64,hv-time=off,legacy-cache=on", Topology::default(), &host()).is_ok());
}

#[test]
fn without_limits_a_model_has_all_its_features() {
    let haswell = model("Haswell");
    assert!(haswell.has("avx2") && haswell.has("xsave"));
    assert_eq!(haswell.signature(), 0x306c4);
    assert_eq!(&haswell.vendor(), b"GenuineIntel");
    let leaf = |function, index| {
        let table = haswell.cpuid(0, 0);
        table.into_iter().find(|row| row.function == function && row.index == index).unwrap()
    };
    assert_eq!(leaf(0xd, Some(0)), CpuidLeaf { function: 0xd, index: Some(0), eax: 7, ebx: 0x340, ecx: 0x340, edx: 0 });
    assert_eq!(leaf(0xd, Some(2)).eax, 0x100);
}

#[test]
fn amd_processors_repeat_features_and_have_no_intel_caches() {
    let table = model("EPYC").cpuid(0, 0);
    let row = |function| table.iter().find(|row| row.function == function).unwrap();
    assert_eq!(row(0x8000_0001).edx & 0x0183_f3ff, row(1).edx & 0x0183_f3ff);
    assert_eq!((row(4).eax, row(0x8000_001d).eax), (0, 0x121));
}

#[test]
fn features_fall_with_what_they_need() {
    let resolved =
        resolved("Cascadelake-Server-v2,-arch-capabilities,+mds-no", Topology::default(), &HostCpu::default());
    let resolved = resolved.unwrap();
    assert!(!resolved.model.has("rdctl-no"));
    assert_eq!(
        resolved.warnings,
        ["This feature depends on other features that were not requested: MSR(10AH).mds-no [bit 5]"]
    );
}

#[test]
fn the_software_cpu_warns_of_what_it_lacks_as_qemu_does() {
    let host = HostCpu::software(FeatureSet::all_named().without(&FeatureSet::from_names("hle svm")));
    let skylake = resolved("Skylake-Server", topology(""), &host).unwrap();
    assert_eq!(skylake.warnings, ["TCG doesn't support requested feature: CPUID.07H:EBX.hle [bit 4]"]);
    assert!(!skylake.model.has("hle") && skylake.model.has("rtm"));
    assert_eq!(&skylake.model.vendor(), b"GenuineIntel");
    let refusal = resolved("Skylake-Server,enforce=on", topology(""), &host).unwrap_err().to_string();
    assert!(refusal.ends_with("\nTCG doesn't support requested features"), "{refusal}");
    assert_eq!(resolved("qemu64", topology(""), &host).unwrap().warnings, [""; 0]);
}

#[test]
fn the_software_cpus_max_has_what_it_implements() {
    let features = FeatureSet::from_names("fpu sse sse2 lm syscall avx xsave");
    let max = resolved("max", topology(""), &HostCpu::software(features)).unwrap();
    assert_eq!((max.model.features(), &max.warnings), (&features, &Vec::new()));
    assert_eq!((&max.model.vendor(), max.model.signature(), max.model.phys_bits()), (b"AuthenticAMD", 0x663, 40));
    let host = resolved("host", topology(""), &HostCpu::software(features)).unwrap_err();
    assert_eq!(host.to_string(), "CPU model 'host' requires KVM or HVF");
}

#[test]
fn without_local_apics_in_the_kernel_no_default_asks_for_them() {
    let resolved = resolved("Haswell", topology(""), &host().without_kernel_apic()).unwrap();
    let features = resolved.model.features();
    let apic: Vec<_> = ["x2apic", "tsc-deadline", "kvm-pv-unhalt"].into_iter().filter(|f| features.has(f)).collect();
    assert_eq!(apic, [""; 0]);
    assert!(!resolved.warnings.iter().any(|text| text.contains("x2apic")), "{:?}", resolved.warnings);
    assert!(features.has("kvmclock") && features.has("apic"));
}

#[test]
fn the_software_cpu_shows_kvm_where_it_is_asked_to() {
    const THERE: &str = "kvmclock kvmclock2 kvm-nopiodelay kvm-poll-control kvmclock-stable-bit";
    let all = FeatureSet::all_named();
    let features =
        all.map(|place, bits| if place == KVM_FEATURES { 0 } else { bits }).or(&FeatureSet::from_names(THERE));
    let leaf = |text: &str| {
        let resolved = resolved(text, topology(""), &HostCpu::software(features)).unwrap();
        let row = resolved.model.cpuid(0, 0).into_iter().find(|row| row.function == 0x4000_0001);
        (row.map(|row| (row.eax, row.edx)), resolved.warnings)
    };
    assert_eq!(leaf("max"), (None, Vec::new()));
    assert_eq!(leaf("qemu64").0, None);
    assert_eq!(leaf("qemu64,kvm=on"), (Some((0x0100_000b, 0)), Vec::new()));
    assert_eq!(leaf("max,kvm=on").0, Some((0x0100_100b, 0)));
    assert_eq!(leaf("qemu64,+kvmclock"), (Some((9, 0)), Vec::new()));
    assert_eq!(leaf("qemu64,+kvm-hint-dedicated").0, Some((0, 1)));
    assert_eq!(leaf("max,kvm=off,+kvmclock").0, None);
    let refused = "TCG doesn't support requested feature: CPUID.40000001H:EAX.kvm-asyncpf [bit 4]".to_owned();
    assert_eq!(leaf("qemu64,+kvm-asyncpf"), (None, vec![refused]));
}
