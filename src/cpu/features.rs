//! Sets of CPUID features, and their names (Intel SDM volume 2 CPUID; AMD APM volume 3 appendix E).

use super::features_table::{ALIASES, WORDS};

/// A register of a CPUID answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reg {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

/// Where a group of features is announced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// A CPUID register.
    Leaf {
        /// EAX of the question.
        function: u32,
        /// ECX of the question, where it matters.
        index: Option<u32>,
        /// The register of the answer.
        reg: Reg,
    },
    /// A model-specific register.
    Msr(u32),
}

impl Place {
    /// A register of a leaf without subleaves.
    #[must_use]
    pub const fn leaf(function: u32, reg: Reg) -> Self {
        Self::Leaf { function, index: None, reg }
    }

    /// A register of a subleaf.
    #[must_use]
    pub const fn subleaf(function: u32, index: u32, reg: Reg) -> Self {
        Self::Leaf { function, index: Some(index), reg }
    }
}

/// One place with the names of its bits.
pub(super) struct Word {
    pub(super) place: Place,
    /// Ascending.
    pub(super) bits: &'static [(u8, &'static str)],
}

/// One feature: the number of its word and of its bit there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Feature {
    word: u8,
    bit: u8,
}

/// KVM's paravirtual features (leaf 4000_0001h EAX).
pub(super) const KVM_FEATURES: Place = Place::leaf(0x4000_0001, Reg::Eax);
/// IA32_ARCH_CAPABILITIES.
pub(super) const ARCH_CAPABILITIES: Place = Place::Msr(0x10a);

fn word_at(place: Place) -> Option<usize> {
    WORDS.iter().position(|word| word.place == place)
}

impl Feature {
    /// The feature of that name; `_` and `-` are the same.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let name = name.replace('_', "-");
        let name = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name.as_str(), |(_, real)| real);
        // The sse4 features are written with a dot, a dash or an underscore.
        (0u8..).zip(WORDS).find_map(|(word, w)| {
            let (bit, _) = w.bits.iter().find(|(_, n)| *n == name)?;
            Some(Self { word, bit: *bit })
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        let bits = WORDS.get(usize::from(self.word)).map_or(&[][..], |word| word.bits);
        bits.iter().find(|(bit, _)| *bit == self.bit).map_or("", |(_, name)| name)
    }

    /// Where it is announced.
    #[must_use]
    pub fn place(self) -> Option<Place> {
        WORDS.get(usize::from(self.word)).map(|word| word.place)
    }

    /// As QEMU names it in warnings: `CPUID.01H:ECX.pni [bit 0]`.
    #[must_use]
    pub fn describe(self) -> String {
        let place = match WORDS.get(usize::from(self.word)).map(|word| word.place) {
            Some(Place::Leaf { function, reg, .. }) => {
                format!("CPUID.{function:02X}H:{}", format!("{reg:?}").to_uppercase())
            }
            Some(Place::Msr(number)) => format!("MSR({number:02X}H)"),
            None => String::new(),
        };
        let name = self.name();
        let dot = if name.is_empty() { "" } else { "." };
        format!("{place}{dot}{name} [bit {}]", self.bit)
    }

    /// All names, sorted.
    pub fn names() -> Vec<&'static str> {
        let mut names: Vec<_> = WORDS.iter().flat_map(|word| word.bits.iter().map(|(_, name)| *name)).collect();
        names.sort_unstable();
        names
    }
}

/// Number of words: a compile-time copy of the table's length.
const COUNT: usize = WORDS.len();

/// A set of features.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FeatureSet {
    words: [u32; COUNT],
}

impl Default for FeatureSet {
    fn default() -> Self {
        Self { words: [0; COUNT] }
    }
}

impl FeatureSet {
    /// The features that a list of names separated by blanks says.
    #[must_use]
    pub fn from_names(names: &str) -> Self {
        let mut set = Self::default();
        names.split_whitespace().filter_map(Feature::named).for_each(|feature| set.insert(feature));
        set
    }

    /// Every named feature.
    #[must_use]
    pub fn all_named() -> Self {
        Self { words: std::array::from_fn(|i| WORDS[i].bits.iter().fold(0, |mask, (bit, _)| mask | 1 << bit)) }
    }

    /// Applies `+name` and `-name` changes, separated by blanks.
    pub(super) fn change(&mut self, changes: &str) {
        for change in changes.split_whitespace() {
            match (change.split_at_checked(1), change.get(1..).and_then(Feature::named)) {
                (Some(("+", _)), Some(feature)) => self.insert(feature),
                (Some(("-", _)), Some(feature)) => self.remove(feature),
                _ => {}
            }
        }
    }

    /// Whether it has the feature.
    #[must_use]
    pub fn contains(&self, feature: Feature) -> bool {
        self.words[usize::from(feature.word)] >> feature.bit & 1 != 0
    }

    /// Whether it has the feature of that name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        Feature::named(name).is_some_and(|feature| self.contains(feature))
    }

    /// Adds a feature.
    pub fn insert(&mut self, feature: Feature) {
        self.words[usize::from(feature.word)] |= 1 << feature.bit;
    }

    /// Takes a feature away.
    pub fn remove(&mut self, feature: Feature) {
        self.words[usize::from(feature.word)] &= !(1 << feature.bit);
    }

    /// The bits of one place; 0 where no bit has a name.
    #[must_use]
    pub fn bits(&self, place: Place) -> u32 {
        word_at(place).map_or(0, |word| self.words[word])
    }

    /// Replaces the bits of one place.
    pub fn set_bits(&mut self, place: Place, bits: u32) {
        if let Some(word) = word_at(place) {
            self.words[word] = bits;
        }
    }

    /// Changes every place's bits.
    pub(super) fn map(mut self, change: impl Fn(Place, u32) -> u32) -> Self {
        for (word, table) in self.words.iter_mut().zip(WORDS) {
            *word = change(table.place, *word);
        }
        self
    }

    /// What is in both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self { words: std::array::from_fn(|i| self.words[i] & other.words[i]) }
    }

    /// What is in this, but not in the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self { words: std::array::from_fn(|i| self.words[i] & !other.words[i]) }
    }

    /// What is in either.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self { words: std::array::from_fn(|i| self.words[i] | other.words[i]) }
    }

    /// The features, by place and bit.
    pub fn iter(&self) -> impl Iterator<Item = Feature> + '_ {
        (0u8..).zip(&self.words).flat_map(|(word, bits)| {
            (0u8..32).filter(move |bit| bits >> bit & 1 != 0).map(move |bit| Feature { word, bit })
        })
    }
}

/// The candidate that is most like `name`, if one is like it at all.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.len() / 3).clamp(1, 3);
    candidates.map(|c| (distance(name, c), c)).filter(|(d, _)| *d <= limit).min_by_key(|(d, _)| *d).map(|(_, c)| c)
}

/// Insertions, deletions and replacements of bytes that make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let cost = diagonal + usize::from(!x.eq_ignore_ascii_case(&y));
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_have_several_spellings() {
        assert_eq!(Feature::named("sse4_1"), Feature::named("sse4.1"));
        assert_eq!(Feature::named("lahf_lm"), Feature::named("lahf-lm"));
        assert_eq!(Feature::named("sse3"), Feature::named("pni"));
        assert_eq!(Feature::named("xd"), Feature::named("nx"));
        assert_eq!(Feature::named("foo"), None);
    }

    #[test]
    fn a_feature_is_described_as_qemu_does() {
        let text = |name: &str| Feature::named(name).map(Feature::describe).unwrap_or_default();
        assert_eq!(text("pni"), "CPUID.01H:ECX.pni [bit 0]");
        assert_eq!(text("fxsr-opt"), "CPUID.80000001H:EDX.fxsr-opt [bit 25]");
        assert_eq!(text("rdctl-no"), "MSR(10AH).rdctl-no [bit 0]");
        assert_eq!(text("avx10-128"), "CPUID.24H:EBX.avx10-128 [bit 16]");
    }

    #[test]
    fn no_name_and_no_bit_is_there_twice() {
        let mut names = Feature::names();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(WORDS.iter().all(|word| word.bits.windows(2).all(|pair| pair[0].0 < pair[1].0)));
    }

    #[test]
    fn changes_add_and_remove() {
        let mut set = FeatureSet::from_names("sse sse2");
        set.change("-sse2 +avx");
        assert_eq!(set, FeatureSet::from_names("sse avx"));
    }

    #[test]
    fn a_misspelt_name_finds_its_neighbour() {
        assert_eq!(nearest("see2", Feature::names().into_iter()), Some("sse2"));
        assert_eq!(nearest("frobnicate", Feature::names().into_iter()), None);
    }
}
