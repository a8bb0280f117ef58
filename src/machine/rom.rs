//! Where firmware and option ROMs are: `-L`, beside the binary, and the folders of the distributions.

use std::io;
use std::path::{Path, PathBuf};

use crate::host::reason;

/// A ROM that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RomError {
    /// It is in none of the folders.
    #[error("could not find ROM '{name}' (looked in {folders}); {hint}")]
    Missing {
        /// File name.
        name: String,
        /// Where it was looked for.
        folders: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// It cannot be read.
    #[error("could not read ROM '{}': {}", path.display(), reason(source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The host's reason.
        #[source]
        source: io::Error,
    },
    /// It has a size that no ROM of its kind has.
    #[error("ROM '{}' has {size} bytes; {expected}", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// What would be right.
        expected: &'static str,
    },
}

/// Folders of distributions, relative to a prefix (`/usr`, `/usr/local`): Debian, Ubuntu, Fedora, RHEL, Arch, SUSE.
const FOLDERS: &[&str] = &[
    "share/dromaius",
    "share/qemu",
    "share/seabios",
    "share/seavgabios",
    "share/qemu-kvm",
    "lib/ipxe/qemu",
    "share/ipxe/qemu",
    "share/ipxe",
    "share/vgabios",
    "share/OVMF",
    "share/edk2/ovmf",
    "share/qemu/firmware",
];

/// No ROM is larger: 16 MiB is what fits below 4 GiB beside the chipset's registers.
const MAX_ROM: u64 = 16 << 20;

/// The folders in which ROMs are looked for, best first.
#[derive(Clone, Debug)]
pub struct RomSearch {
    folders: Vec<PathBuf>,
}

impl RomSearch {
    /// `-L` folders first, then those beside the running program, then the distributions'.
    #[must_use]
    pub fn new(data_dirs: &[PathBuf]) -> Self {
        let mut folders: Vec<PathBuf> = data_dirs.to_vec();
        let program = std::env::current_exe().ok();
        if let Some(folder) = program.as_deref().and_then(Path::parent) {
            folders.push(folder.to_owned());
            folders.push(folder.join("pc-bios"));
            folders.push(folder.join("firmware"));
            if let Some(prefix) = folder.parent() {
                folders.extend(FOLDERS.iter().take(2).map(|sub| prefix.join(sub)));
            }
        }
        for prefix in ["/usr", "/usr/local"] {
            folders.extend(FOLDERS.iter().map(|sub| Path::new(prefix).join(sub)));
        }
        Self { folders }
    }

    /// The folders, best first (`-L help`).
    #[must_use]
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The path of a ROM: a name with a `/` is a path already.
    ///
    /// # Errors
    /// It is nowhere.
    pub fn find(&self, name: &str) -> Result<PathBuf, RomError> {
        let direct = Path::new(name);
        if direct.is_file() {
            return Ok(direct.to_owned());
        }
        let found = self.folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
        found.ok_or_else(|| RomError::Missing {
            name: name.to_owned(),
            folders: self.existing(),
            hint: package_hint(name),
        })
    }

    fn existing(&self) -> String {
        let existing: Vec<_> = self.folders.iter().filter(|f| f.is_dir()).map(|f| f.display().to_string()).collect();
        if existing.is_empty() { "no folder of ROMs exists".to_owned() } else { existing.join(", ") }
    }

    /// Finds and reads a ROM.
    ///
    /// # Errors
    /// It is nowhere, cannot be read, is empty or larger than 16 MiB.
    pub fn load(&self, name: &str) -> Result<Vec<u8>, RomError> {
        let path = self.find(name)?;
        let read = std::fs::metadata(&path).and_then(|meta| {
            let size = meta.len();
            if size == 0 || size > MAX_ROM { Ok(Err(size)) } else { std::fs::read(&path).map(Ok) }
        });
        match read {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(size)) => Err(RomError::Size { path, size, expected: "a ROM has between 1 byte and 16 MiB" }),
            Err(source) => Err(RomError::Unreadable { path, source }),
        }
    }
}

/// Which package has a ROM.
fn package_hint(name: &str) -> &'static str {
    if name.starts_with("bios") || name.starts_with("vgabios") {
        "install the package 'seabios' (Debian, Ubuntu, Arch), 'seabios-bin seavgabios-bin' (Fedora, RHEL) or \
         'qemu-seabios qemu-vgabios' (SUSE), or name its folder with -L"
    } else if name.starts_with("efi-") || name.starts_with("pxe-") {
        "install the package 'ipxe-qemu' (Debian, Ubuntu), 'ipxe-roms-qemu' (Fedora, RHEL) or 'qemu-ipxe' (SUSE), or \
         name its folder with -L"
    } else if name.starts_with("OVMF") || name.starts_with("edk2") {
        "install the package 'ovmf' (Debian, Ubuntu), 'edk2-ovmf' (Fedora, RHEL, Arch) or 'qemu-ovmf-x86_64' (SUSE)"
    } else {
        "name its folder with -L"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_the_user_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("bios-256k.bin"), [1, 2, 3]).unwrap();
        let search = RomSearch::new(&[folder.path().to_owned()]);
        assert_eq!(search.load("bios-256k.bin").unwrap(), [1, 2, 3]);
    }

    #[test]
    fn a_missing_rom_names_the_package() {
        let error = RomSearch { folders: vec![] }.load("bios-256k.bin").unwrap_err().to_string();
        assert!(error.contains("'bios-256k.bin'") && error.contains("seabios"), "{error}");
    }

    #[test]
    fn an_empty_rom_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("empty.bin"), []).unwrap();
        let search = RomSearch { folders: vec![folder.path().to_owned()] };
        assert!(matches!(search.load("empty.bin"), Err(RomError::Size { size: 0, .. })));
    }
}
