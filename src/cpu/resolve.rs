//! From `-cpu` to a processor.

use super::cache::{self, Caches};
use super::cpuid::{self, COMPONENTS, Component};
use super::features::{ARCH_CAPABILITIES, Feature, FeatureSet, KVM_FEATURES, Place, Reg, nearest};
use super::model::{CpuidLeaf, HostCpu, KERNEL_APIC_FEATURES, Limits, Topology};
use super::models::{self, Found, model_names};

/// Why there is no such processor.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// The text for the user.
    #[error("{0}")]
    Refused(String),
}

fn refused<T>(text: String) -> Result<T, CpuError> {
    Err(CpuError::Refused(text))
}

/// A processor that a guest can have: what its CPUID table is made of, and what follows from it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuModel {
    pub(super) topology: Topology,
    /// Twelve letters.
    pub(super) vendor: [u8; 12],
    pub(super) family: u32,
    pub(super) model: u32,
    pub(super) stepping: u32,
    /// 48 bytes, padded with zeros.
    pub(super) brand: [u8; 48],
    /// Highest basic leaf.
    pub(super) level: u32,
    /// Highest subleaf of leaf 7.
    pub(super) level_7: u32,
    /// Highest extended leaf; 0: none.
    pub(super) xlevel: u32,
    /// Highest leaf of the C000_0000h range; 0: none.
    pub(super) xlevel2: u32,
    pub(super) features: FeatureSet,
    pub(super) phys_bits: u32,
    pub(super) avx10_version: u32,
    /// KVM shows itself.
    pub(super) kvm: bool,
    pub(super) l3_cache: bool,
    /// Leaf Bh is there (`cpuid-0xb`).
    pub(super) leaf_b: bool,
    /// Leaf Ah, where there is a performance monitoring unit.
    pub(super) pmu: Option<CpuidLeaf>,
    /// The model's own caches.
    pub(super) caches: Option<Caches>,
    /// Leaves that come from the accelerator as they are.
    pub(super) passed: Vec<CpuidLeaf>,
    /// The XSAVE components' layout.
    pub(super) components: Vec<Component>,
    tsc_khz: Option<u32>,
    writes_arch_capabilities: bool,
}

impl CpuModel {
    /// The table that logical processor `index` shows, if its time stamp counter runs at `tsc_khz` (0: unknown).
    #[must_use]
    pub fn cpuid(&self, index: u32, tsc_khz: u32) -> Vec<CpuidLeaf> {
        cpuid::table(self, index, tsc_khz)
    }

    /// Whether KVM's leaves are shown.
    #[must_use]
    pub fn shows_kvm(&self) -> bool {
        self.kvm
    }

    /// Whether the table depends on the time stamp counter's frequency: it is constant, and KVM shows itself (the leaf
    /// is VMware's, which guests look for under KVM as well).
    #[must_use]
    pub fn tells_frequency(&self) -> bool {
        self.kvm && (self.has("invtsc") || self.tsc_khz.is_some())
    }

    /// The APIC id of logical processor `index`.
    #[must_use]
    pub fn apic_id(&self, index: u32) -> u32 {
        self.topology.apic_id(index)
    }

    /// Its topology.
    #[must_use]
    pub fn topology(&self) -> Topology {
        self.topology
    }

    /// Its features.
    #[must_use]
    pub fn features(&self) -> &FeatureSet {
        &self.features
    }

    /// Whether it has the feature of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.features.has(name)
    }

    /// Bits of a physical address.
    #[must_use]
    pub fn phys_bits(&self) -> u32 {
        self.phys_bits
    }

    /// The vendor's twelve letters.
    #[must_use]
    pub fn vendor(&self) -> [u8; 12] {
        self.vendor
    }

    /// Family, model and stepping as EAX of leaf 1 packs them.
    #[must_use]
    pub fn signature(&self) -> u32 {
        let (base, extended) = if self.family > 15 { (15, self.family - 15) } else { (self.family, 0) };
        extended << 20 | base << 8 | (self.model >> 4 & 15) << 16 | (self.model & 15) << 4 | self.stepping & 15
    }

    /// Whether it has the machine-check architecture (MCE and MCA).
    #[must_use]
    pub fn has_machine_check(&self) -> bool {
        self.has("mce") && self.has("mca") && self.family >= 6
    }

    /// `tsc-frequency`, if given, in kHz.
    #[must_use]
    pub fn tsc_khz(&self) -> Option<u32> {
        self.tsc_khz
    }

    /// Model-specific registers that describe the processor and that the accelerator does not know by itself.
    #[must_use]
    pub fn feature_msrs(&self) -> Vec<(u32, u64)> {
        if self.writes_arch_capabilities && self.has("arch-capabilities") {
            vec![(0x10a, u64::from(self.features.bits(ARCH_CAPABILITIES)))]
        } else {
            Vec::new()
        }
    }

    pub(super) fn is_amd(&self) -> bool {
        &self.vendor == b"AuthenticAMD" || &self.vendor == b"HygonGenuine"
    }

    pub(super) fn intel_caches(&self) -> Caches {
        self.caches.unwrap_or(cache::LEGACY_INTEL)
    }

    pub(super) fn amd_caches(&self) -> Caches {
        self.caches.unwrap_or(cache::LEGACY_AMD)
    }

    pub(super) fn xsave_components(&self) -> Vec<Component> {
        self.components.iter().filter(|c| self.has(c.feature)).copied().collect()
    }
}

/// What `-cpu` asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolved {
    /// The processor.
    pub model: CpuModel,
    /// Lines for standard error, without "warning: ".
    pub warnings: Vec<String>,
}

/// The features that machines on KVM switch on and off in every named model.
const KVM_DEFAULTS: &str = "+kvmclock +kvmclock2 +kvm-nopiodelay +kvm-asyncpf +kvm-steal-time +kvm-pv-eoi \
    +kvmclock-stable-bit +x2apic -acpi -monitor -svm";

/// What no named model has on the software CPU unless it is asked for: virtualization inside the guest.
const SOFTWARE_DEFAULTS: &str = "-svm";

/// What a named model shows of KVM on the software CPU with `kvm=on`: of [`KVM_DEFAULTS`] those that are there.
const SOFTWARE_KVM_DEFAULTS: &str = "+kvmclock +kvmclock2 +kvm-nopiodelay +kvmclock-stable-bit";

/// KVM's hints to its guests (leaf 4000_0001h EDX).
const KVM_HINTS: Place = Place::leaf(0x4000_0001, Reg::Edx);

/// Features that a migration would break; `host` and `max` have them only with `migratable=off`.
const UNMIGRATABLE: &str = "invtsc";

/// What QEMU's default processor is called.
const DEFAULT: &str = "qemu64";

/// Finds the processor that `name` (the machine's default if `None`) and `properties` describe, within what `host`
/// can give.
///
/// # Errors
/// An unknown model or property, or a value that does not fit.
pub fn resolve(
    name: Option<&str>,
    properties: &[(String, String)],
    topology: Topology,
    host: &HostCpu,
) -> Result<Resolved, CpuError> {
    let name = name.unwrap_or(DEFAULT);
    let mut draft = Draft::new(name, topology, host)?;
    for (property, value) in properties {
        draft.set(property, value)?;
    }
    draft.finish()
}

/// A processor in the making.
struct Draft<'a> {
    name: &'a str,
    host: &'a HostCpu,
    cpu: CpuModel,
    /// Explicitly asked for, or refused.
    wanted: FeatureSet,
    unwanted: FeatureSet,
    /// `host` or `max`: has what the host has.
    follows_host: bool,
    migratable: bool,
    check: bool,
    enforce: bool,
    auto_level: bool,
    auto_level_7: bool,
    auto_xlevel: bool,
    phys_bits: Option<u32>,
    host_phys_bits: bool,
    host_phys_bits_limit: u32,
    host_cache_info: bool,
    wants_pmu: bool,
    /// `kvm=`, where it is a software CPU that is to show KVM's leaves.
    kvm_shown: Option<bool>,
}

impl<'a> Draft<'a> {
    fn new(name: &'a str, topology: Topology, host: &'a HostCpu) -> Result<Self, CpuError> {
        let blank = CpuModel {
            topology,
            vendor: [0; 12],
            family: 0,
            model: 0,
            stepping: 0,
            brand: [0; 48],
            level: 0,
            level_7: 0,
            xlevel: 0,
            xlevel2: 0,
            features: FeatureSet::default(),
            phys_bits: 40,
            avx10_version: 0,
            kvm: host.is_kvm,
            l3_cache: true,
            leaf_b: true,
            pmu: None,
            caches: None,
            passed: Vec::new(),
            components: COMPONENTS.to_vec(),
            tsc_khz: None,
            writes_arch_capabilities: false,
        };
        let mut draft = Self {
            name,
            host,
            cpu: blank,
            wanted: FeatureSet::default(),
            unwanted: FeatureSet::default(),
            follows_host: false,
            migratable: true,
            check: true,
            enforce: false,
            auto_level: true,
            auto_level_7: true,
            auto_xlevel: true,
            phys_bits: None,
            host_phys_bits: false,
            host_phys_bits_limit: 0,
            host_cache_info: false,
            wants_pmu: false,
            kvm_shown: None,
        };
        match name {
            "base" => {}
            "host" if !host.is_kvm => {
                return refused("CPU model 'host' requires KVM or HVF".to_owned());
            }
            "host" | "max" => draft.start_from_host(),
            "" => return refused("unable to find CPU model ''".to_owned()),
            _ => {
                let found = models::find(name).ok_or_else(|| CpuError::Refused(unknown_model(name)))?;
                draft.start_from_table(found);
            }
        }
        Ok(draft)
    }

    fn start_from_table(&mut self, found: Found) {
        let (def, version) = (found.def, found.version());
        let cpu = &mut self.cpu;
        cpu.vendor = def.vendor.id();
        cpu.family = def.family;
        cpu.model = version.model;
        cpu.stepping = version.stepping;
        cpu.level = version.level;
        cpu.level_7 = def.level_7;
        cpu.xlevel = version.xlevel;
        cpu.xlevel2 = def.xlevel2;
        cpu.features = found.features();
        cpu.avx10_version = u32::from(cpu.features.has("avx10"));
        cpu.caches = cache::own(def.name, found.number());
        cpu.writes_arch_capabilities = true;
        set_brand(&mut cpu.brand, version.model_id);
        if self.host.is_kvm {
            cpu.features.change(KVM_DEFAULTS);
            if self.host.limits.as_ref().is_some_and(|limits| !limits.features.has("x2apic")) {
                cpu.features = cpu.features.without(&FeatureSet::from_names(KERNEL_APIC_FEATURES));
            }
        } else if self.host.limits.is_some() {
            cpu.features.change(SOFTWARE_DEFAULTS);
        }
        // On real hardware a guest's system calls, and much of its firmware, go by the host's vendor.
        if let Some(limits) = self.host.hardware() {
            cpu.vendor = host_vendor(limits);
        }
    }

    fn start_from_host(&mut self) {
        self.follows_host = true;
        self.wants_pmu = true;
        self.host_phys_bits = true;
        let Some(limits) = self.host.hardware() else {
            // Software: everything that it can, on QEMU's own processor.
            self.cpu.features = FeatureSet::all_named();
            self.cpu.vendor = *b"AuthenticAMD";
            (self.cpu.family, self.cpu.model, self.cpu.stepping) = (6, 6, 3);
            set_brand(&mut self.cpu.brand, "QEMU TCG CPU version 2.5+");
            (self.cpu.level, self.cpu.level_7, self.cpu.xlevel) = (0xd, 2, 0x8000_000a);
            return;
        };
        let signature = limits.leaf(1, 0).eax;
        let cpu = &mut self.cpu;
        cpu.vendor = host_vendor(limits);
        cpu.family = (signature >> 8 & 15) + (signature >> 20 & 0xff);
        cpu.model = (signature >> 4 & 15) | (signature >> 12 & 0xf0);
        cpu.stepping = signature & 15;
        cpu.brand = limits.brand;
        cpu.level = limits.leaf(0, 0).eax;
        cpu.level_7 = limits.leaf(7, 0).eax;
        cpu.xlevel = limits.leaf(0x8000_0000, 0).eax;
        cpu.xlevel2 = limits.leaf(0xc000_0000, 0).eax;
        cpu.avx10_version = limits.leaf(0x24, 0).ebx & 0xff;
    }

    /// One property of `-cpu`.
    fn set(&mut self, property: &str, value: &str) -> Result<(), CpuError> {
        let name = property.replace('_', "-");
        if let Some(feature) = Feature::named(&name) {
            let on = on_off(property, value)?;
            self.set_feature(feature, on);
            if name == "kvmclock"
                && let Some(second) = Feature::named("kvmclock2")
            {
                self.set_feature(second, on);
            }
            return Ok(());
        }
        match name.as_str() {
            "check" => self.check = on_off(property, value)?,
            "enforce" => self.enforce = on_off(property, value)?,
            "kvm" if self.host.is_kvm => self.cpu.kvm &= on_off(property, value)?,
            "kvm" => self.kvm_shown = Some(on_off(property, value)?),
            "l3-cache" => self.cpu.l3_cache = on_off(property, value)?,
            "cpuid-0xb" => self.cpu.leaf_b = on_off(property, value)?,
            "pmu" => self.wants_pmu = on_off(property, value)?,
            "host-phys-bits" => self.host_phys_bits = on_off(property, value)?,
            "host-cache-info" => self.host_cache_info = on_off(property, value)?,
            "migratable" if self.follows_host => self.migratable = on_off(property, value)?,
            "family" => self.cpu.family = number(property, value, 0xff + 0xf)?,
            "model" => self.cpu.model = number(property, value, 0xff)?,
            "stepping" => self.cpu.stepping = number(property, value, 0xf)?,
            "level" => (self.cpu.level, self.auto_level) = (number(property, value, u32::MAX)?, false),
            "level-func7" => (self.cpu.level_7, self.auto_level_7) = (number(property, value, u32::MAX)?, false),
            "xlevel" => (self.cpu.xlevel, self.auto_xlevel) = (number(property, value, u32::MAX)?, false),
            "xlevel2" => self.cpu.xlevel2 = number(property, value, u32::MAX)?,
            "min-level" => self.cpu.level = self.cpu.level.max(number(property, value, u32::MAX)?),
            "min-xlevel" => self.cpu.xlevel = self.cpu.xlevel.max(number(property, value, u32::MAX)?),
            "phys-bits" => self.phys_bits = Some(number(property, value, u32::MAX)?).filter(|bits| *bits != 0),
            "host-phys-bits-limit" => self.host_phys_bits_limit = number(property, value, 0xff)?,
            "vendor" => self.set_vendor(value)?,
            "model-id" => set_brand(&mut self.cpu.brand, value),
            "tsc-frequency" => self.set_tsc_frequency(property, value)?,
            _ => return self.set_other(property, &name, value),
        }
        Ok(())
    }

    fn set_feature(&mut self, feature: Feature, on: bool) {
        let (add, drop) =
            if on { (&mut self.wanted, &mut self.unwanted) } else { (&mut self.unwanted, &mut self.wanted) };
        add.insert(feature);
        drop.remove(feature);
    }

    fn set_vendor(&mut self, value: &str) -> Result<(), CpuError> {
        let text = "value of property 'vendor' must consist of exactly 12 characters";
        self.cpu.vendor = value.as_bytes().try_into().map_err(|_| CpuError::Refused(text.to_owned()))?;
        Ok(())
    }

    fn set_tsc_frequency(&mut self, property: &str, value: &str) -> Result<(), CpuError> {
        let hertz: i64 =
            value.parse().map_err(|_| CpuError::Refused(format!("Parameter '{property}' expects int64")))?;
        let khz = u32::try_from(hertz / 1000)
            .map_err(|_| CpuError::Refused(format!("parameter '{property}' can be at most {}", i64::MAX)))?;
        self.cpu.tsc_khz = (khz != 0).then_some(khz);
        Ok(())
    }

    /// Properties that QEMU has and this version has not, values that change nothing, and unknown names.
    fn set_other(&self, property: &str, name: &str, value: &str) -> Result<(), CpuError> {
        // The value that asks for what there is anyway.
        let default = match name {
            "fill-mtrr-mask"
            | "full-cpuid-auto-level"
            | "legacy-cache"
            | "x-intel-pt-auto-level"
            | "x-vendor-cpuid-only"
            | "x-amd-topoext-features-only"
            | "x-l1-cache-per-thread"
            | "vmware-cpuid-freq"
            | "tcg-cpuid"
            | "x-migrate-smi-count" => "on",
            "lmce"
            | "start-powered-off"
            | "x-force-features"
            | "xen-vapic"
            | "kvm-pv-enforce-cpuid"
            | "legacy-multi-node"
            | "hv-passthrough"
            | "hv-enforce-cpuid" => "off",
            _ if is_hyper_v(name) || name.starts_with("vmx-") => "off",
            _ if OTHER.contains(&name) => "",
            _ => return refused(self.unknown_property(property)),
        };
        let same = match value {
            "yes" | "true" | "y" => default == "on",
            "no" | "false" | "n" => default == "off",
            value => !default.is_empty() && value == default,
        };
        if same {
            Ok(())
        } else {
            refused(format!("-cpu property '{property}={value}' is not supported by this version"))
        }
    }

    fn unknown_property(&self, property: &str) -> String {
        let text = format!("Property '{}-x86_64-cpu.{property}' not found", self.name);
        let names = Feature::names();
        match nearest(property, names.into_iter().chain(PROPERTIES.iter().copied())) {
            Some(near) => format!("{text}\nDid you mean '{near}'?"),
            None => text,
        }
    }

    fn finish(mut self) -> Result<Resolved, CpuError> {
        let mut warnings = Vec::new();
        if self.follows_host
            && let Some(limits) = &self.host.limits
        {
            self.cpu.features = limits.features.and(&FeatureSet::all_named());
            if self.migratable {
                self.cpu.features = self.cpu.features.without(&FeatureSet::from_names(UNMIGRATABLE));
            }
            // What the user must ask for.
            self.cpu.features = self.cpu.features.without(&FeatureSet::from_names("ht kvm-hint-dedicated topoext"));
            self.cpu.features = self.cpu.features.without(&FeatureSet::from_names("overflow-recov succor"));
        }
        self.choose_paravirtual();
        self.cpu.features = self.cpu.features.or(&self.wanted).without(&self.unwanted);
        self.mark_cores();
        self.drop_dependents(&mut warnings);
        self.adjust_levels();
        self.apply_limits(&mut warnings)?;
        self.choose_address_size(&mut warnings)?;
        self.pass_leaves_through()?;
        if !self.host.is_kvm && !self.cpu.kvm {
            for place in [KVM_FEATURES, KVM_HINTS] {
                self.cpu.features.set_bits(place, 0);
            }
        }
        Ok(Resolved { model: self.cpu, warnings })
    }

    /// A software CPU shows KVM's leaves if it is asked to, by `kvm=on` or by one of the features that it has.
    fn choose_paravirtual(&mut self) {
        if self.host.is_kvm {
            return;
        }
        let possible = self.host.limits.as_ref().map_or(self.wanted, |limits| self.wanted.and(&limits.features));
        self.cpu.kvm = self.kvm_shown.unwrap_or(possible.bits(KVM_FEATURES) | possible.bits(KVM_HINTS) != 0);
        if self.kvm_shown == Some(true) && !self.follows_host {
            self.cpu.features.change(SOFTWARE_KVM_DEFAULTS);
        }
    }

    /// AMD's CmpLegacy: the logical processors of leaf 1 are cores. Linux believes it on Intel's, too, so only AMD's
    /// have it, and only where the accelerator can give it.
    fn mark_cores(&mut self) {
        let Some(feature) = Feature::named("cmp-legacy") else { return };
        let possible = self.host.limits.as_ref().is_none_or(|limits| limits.features.contains(feature));
        if possible && self.cpu.is_amd() && self.cpu.topology.threads_per_socket() > 1 {
            self.cpu.features.insert(feature);
        }
    }

    /// Features that mean nothing without another.
    fn drop_dependents(&mut self, warnings: &mut Vec<String>) {
        let places = |place: Place| FeatureSet::all_named().map(|p, bits| if p == place { bits } else { 0 });
        let dependents = [
            ("arch-capabilities", places(ARCH_CAPABILITIES)),
            ("core-capability", places(Place::Msr(0xcf))),
            ("pdcm", places(Place::Msr(0x345))),
            ("svm", places(Place::leaf(0x8000_000a, Reg::Edx))),
            ("intel-pt", places(Place::subleaf(0x14, 0, Reg::Ecx))),
            ("sgx", places(Place::subleaf(0x12, 0, Reg::Eax))),
            ("avx10", places(Place::subleaf(0x24, 0, Reg::Ebx))),
            ("xsave", places(Place::subleaf(0xd, 1, Reg::Eax))),
        ];
        for (needs, set) in dependents {
            if self.cpu.has(needs) {
                continue;
            }
            let lost = self.cpu.features.and(&set);
            for feature in lost.and(&self.wanted).iter() {
                warnings.push(format!(
                    "This feature depends on other features that were not requested: {}",
                    feature.describe()
                ));
            }
            self.cpu.features = self.cpu.features.without(&lost);
        }
    }

    /// The tables end where the features that were asked for end, at least.
    fn adjust_levels(&mut self) {
        let (level, level_7, xlevel) = cpuid::needed_levels(&self.cpu);
        if self.auto_level {
            self.cpu.level = self.cpu.level.max(level);
        }
        if self.auto_level_7 {
            self.cpu.level_7 = self.cpu.level_7.max(level_7);
        }
        if self.auto_xlevel {
            self.cpu.xlevel = self.cpu.xlevel.max(xlevel);
        }
    }

    /// Takes away what the accelerator cannot give, with a warning for each.
    fn apply_limits(&mut self, warnings: &mut Vec<String>) -> Result<(), CpuError> {
        let Some(limits) = &self.host.limits else { return Ok(()) };
        let lost = self.cpu.features.without(&limits.features);
        // A paravirtual feature that an old kernel lacks was not asked for by anybody.
        let told = |feature: &Feature| feature.place() != Some(KVM_FEATURES) || self.wanted.contains(*feature);
        if self.check || self.enforce {
            let who = self.host.refuser();
            let text = |feature: Feature| format!("{who} doesn't support requested feature: {}", feature.describe());
            warnings.extend(lost.iter().filter(told).map(text));
        }
        if self.enforce && lost.iter().any(|feature| told(&feature)) {
            let mut text = warnings.iter().map(|warning| format!("warning: {warning}")).collect::<Vec<_>>();
            let who = if self.host.is_kvm { "Host" } else { "TCG" };
            text.push(format!("{who} doesn't support requested features"));
            return refused(text.join("\n"));
        }
        self.cpu.features = self.cpu.features.without(&lost);
        Ok(())
    }

    fn choose_address_size(&mut self, warnings: &mut Vec<String>) -> Result<(), CpuError> {
        let host = self.host.hardware().map(Limits::phys_bits);
        if let (Some(host), Some(bits)) = (host, self.phys_bits)
            && host != bits
        {
            warnings.push(format!("Host physical bits ({host}) does not match phys-bits property ({bits})"));
        }
        let long = self.cpu.has("lm");
        if let Some(bits) = self.phys_bits
            && !self.host_phys_bits
            && long
            && !(32..=52).contains(&bits)
        {
            return refused(format!("phys-bits should be between 32 and 52  (but is {bits})"));
        }
        if !long {
            if self.phys_bits.is_some() {
                return refused("phys-bits is not user-configurable in 32 bit".to_owned());
            }
            self.cpu.phys_bits = if self.cpu.has("pse36") || self.cpu.has("pae") { 36 } else { 32 };
            return Ok(());
        }
        self.cpu.phys_bits = match (host, self.host_phys_bits) {
            (Some(host), true) if self.host_phys_bits_limit != 0 => host.min(self.host_phys_bits_limit),
            (Some(host), true) => host,
            _ => self.phys_bits.unwrap_or(40),
        };
        Ok(())
    }

    fn pass_leaves_through(&mut self) -> Result<(), CpuError> {
        if self.host_cache_info {
            return refused("-cpu property 'host-cache-info=on' is not supported by this version".to_owned());
        }
        let Some(limits) = self.host.hardware() else { return Ok(()) };
        if self.wants_pmu {
            self.cpu.pmu = Some(limits.leaf(0xa, 0));
        } else if let Some(feature) = Feature::named("pdcm") {
            self.cpu.features.remove(feature);
        }
        self.cpu.passed = limits.table.iter().filter(|leaf| leaf.function == 0x14).copied().collect();
        for component in &mut self.cpu.components {
            let leaf = limits.leaf(0xd, component.number);
            if leaf.eax != 0 {
                (component.size, component.offset, component.flags) = (leaf.eax, leaf.ebx, leaf.ecx);
            }
        }
        Ok(())
    }
}

/// Properties without a bit that `-cpu` takes.
const PROPERTIES: &[&str] = &[
    "check",
    "cpuid-0xb",
    "enforce",
    "family",
    "host-cache-info",
    "host-phys-bits",
    "host-phys-bits-limit",
    "kvm",
    "l3-cache",
    "level",
    "level-func7",
    "migratable",
    "min-level",
    "min-xlevel",
    "model",
    "model-id",
    "phys-bits",
    "pmu",
    "stepping",
    "tsc-frequency",
    "vendor",
    "xlevel",
    "xlevel2",
];

/// Properties of QEMU's that this version refuses.
const OTHER: &[&str] = &[
    "apic-id",
    "avx10-version",
    "core-id",
    "crash-information",
    "die-id",
    "guest-phys-bits",
    "lbr-fmt",
    "memory",
    "min-xlevel2",
    "module-id",
    "node-id",
    "socket-id",
    "thread-id",
    "ucode-rev",
    "x-hv-max-vps",
    "x-hv-synic-kvm-only",
];

/// QEMU's Hyper-V properties.
fn is_hyper_v(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "apicv",
        "avic",
        "crash",
        "emsr-bitmap",
        "evmcs",
        "frequencies",
        "ipi",
        "no-nonarch-coresharing",
        "reenlightenment",
        "relaxed",
        "reset",
        "runtime",
        "spinlocks",
        "stimer",
        "stimer-direct",
        "syndbg",
        "synic",
        "time",
        "tlbflush",
        "tlbflush-direct",
        "tlbflush-ext",
        "vapic",
        "vendor-id",
        "version-id-build",
        "version-id-major",
        "version-id-minor",
        "version-id-sbranch",
        "version-id-snumber",
        "version-id-spack",
        "vpindex",
        "xmm-input",
    ];
    name.strip_prefix("hv-").is_some_and(|rest| NAMES.contains(&rest))
}

fn unknown_model(name: &str) -> String {
    let text = format!("unable to find CPU model '{name}'");
    let names: Vec<String> = model_names().into_iter().map(|(name, _)| name).collect();
    match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("{text}\nDid you mean '{near}'?"),
        None => text,
    }
}

fn host_vendor(limits: &Limits) -> [u8; 12] {
    let leaf = limits.leaf(0, 0);
    let mut vendor = [0; 12];
    for (to, word) in vendor.chunks_exact_mut(4).zip([leaf.ebx, leaf.edx, leaf.ecx]) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    vendor
}

/// Puts a text into the 48 bytes of the brand string; the rest is zero.
fn set_brand(brand: &mut [u8; 48], text: &str) {
    *brand = [0; 48];
    for (to, from) in brand.iter_mut().zip(text.bytes()) {
        *to = from;
    }
}

fn on_off(property: &str, value: &str) -> Result<bool, CpuError> {
    match value {
        "on" | "yes" | "true" | "y" => Ok(true),
        "off" | "no" | "false" | "n" => Ok(false),
        _ => refused(format!("Parameter '{property}' expects 'on' or 'off'")),
    }
}

/// A number in decimal, hexadecimal (0x) or octal (0).
fn number(property: &str, value: &str, limit: u32) -> Result<u32, CpuError> {
    let parsed = match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16),
        None if value.len() > 1 && value.starts_with('0') => u64::from_str_radix(value, 8),
        None => value.parse(),
    };
    let parsed = parsed.map_err(|_| CpuError::Refused(format!("Parameter '{property}' expects uint64")))?;
    let fits = u32::try_from(parsed).ok().filter(|number| *number <= limit);
    fits.ok_or_else(|| CpuError::Refused(format!("parameter '{property}' can be at most {limit}")))
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
