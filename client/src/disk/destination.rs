//! Where a download goes: a directory that is held open, and a name beneath it that no link can lead astray.

use mini_torrent_common::error_code::ErrorCode;
use mini_torrent_common::names::{FileName, MAX_FILE_NAME_LENGTH};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::error::CommandError;
use mini_torrent_common::hash::Sha1Hash;

/// A file that exists or shall exist, named beneath an open directory.
#[derive(Debug)]
pub(crate) struct Destination {
    directory: OwnedFd,
    name: String,
    path: PathBuf,
}

impl Destination {
    /// Resolves what the user typed: an existing directory takes the file under its own name, else the path's
    /// directory must exist.
    pub(crate) fn resolve(typed: &Path, file: &FileName) -> Result<Self, CommandError> {
        let typed = std::path::absolute(typed).map_err(|error| CommandError::io(typed, &error))?;
        if typed.is_dir() {
            return Self::open(&typed, file.as_str());
        }
        let name = typed.file_name().and_then(|name| name.to_str()).map(str::parse::<FileName>);
        let name = name.and_then(Result::ok).ok_or_else(|| {
            CommandError::new(ErrorCode::InvalidName, format!("{} does not end in a file name", typed.display()))
        })?;
        Self::open(typed.parent().unwrap_or(Path::new("/")), name.as_str())
    }

    /// The destination that was resolved before to this path.
    pub(crate) fn reopen(path: &Path) -> Result<Self, CommandError> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        Self::open(path.parent().unwrap_or(Path::new("/")), name)
    }

    fn open(directory: &Path, name: &str) -> Result<Self, CommandError> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(directory, flags, Mode::empty());
        let opened = opened.map_err(|error| CommandError::io(directory, &error.into()))?;
        let directory = directory.canonicalize().map_err(|error| CommandError::io(directory, &error))?;
        Ok(Self { directory: opened, path: directory.join(name), name: name.to_owned() })
    }

    /// The absolute path of the finished file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that the file system has left for us.
    pub(crate) fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.directory)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Whether something stands under the finished name, be it only a link to nowhere.
    pub(crate) fn exists(&self) -> bool {
        rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Creates the partial file; it must not exist.
    pub(crate) fn create_part(&self) -> io::Result<File> {
        self.open_part(OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR)
    }

    /// Opens the partial file that is there already.
    pub(crate) fn reopen_part(&self) -> io::Result<File> {
        self.open_part(OFlags::empty(), Mode::empty())
    }

    fn open_part(&self, flags: OFlags, mode: Mode) -> io::Result<File> {
        let flags = flags | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let file = File::from(rustix::fs::openat2(&self.directory, self.part_name(), flags, mode, beneath)?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "the partial file is not a regular file")),
        }
    }

    /// Removes the partial file if it is the one with this inode.
    pub(crate) fn remove_part(&self, inode: u64) -> io::Result<()> {
        match self.part_stat() {
            Ok(stat) if stat.st_ino == inode => {
                Ok(rustix::fs::unlinkat(&self.directory, self.part_name(), AtFlags::empty())?)
            }
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn part_stat(&self) -> Result<Stat, Errno> {
        rustix::fs::statat(&self.directory, self.part_name(), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Gives the partial file its final name, durably. Without `replace`, nothing that is there is replaced.
    ///
    /// # Errors
    /// `NotFound` when the name does not stand for `part` any more: whatever it stands for is not what was
    /// verified.
    pub(crate) fn finish(&self, part: &File, replace: bool) -> io::Result<()> {
        let verified = rustix::fs::fstat(part)?;
        let named = self.part_stat()?;
        if (named.st_dev, named.st_ino) != (verified.st_dev, verified.st_ino) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "another file took the partial file's place"));
        }
        let (part_name, directory) = (self.part_name(), &self.directory);
        if replace {
            rustix::fs::renameat(directory, part_name, directory, &self.name)?;
        } else {
            let renamed =
                rustix::fs::renameat_with(directory, &part_name, directory, &self.name, RenameFlags::NOREPLACE);
            match renamed {
                // Some network file systems cannot rename without replacing, but a link never replaces.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    rustix::fs::linkat(directory, &part_name, directory, &self.name, AtFlags::empty())?;
                    rustix::fs::unlinkat(directory, &part_name, AtFlags::empty())?;
                }
                renamed => renamed?,
            }
        }
        rustix::fs::fsync(directory)?;
        Ok(())
    }

    /// `.<name>.part`; of a name that is too long for that, the start and a digest.
    fn part_name(&self) -> String {
        let plain = format!(".{}.part", self.name);
        if plain.len() <= MAX_FILE_NAME_LENGTH {
            return plain;
        }
        let digest = Sha1Hash::of(self.name.as_bytes());
        let room = MAX_FILE_NAME_LENGTH - format!(".-{digest}.part").len();
        let cut = (0..=room).rev().find(|at| self.name.is_char_boundary(*at)).unwrap_or(0);
        format!(".{}-{digest}.part", &self.name[..cut])
    }

    /// The partial file's path, for messages.
    pub(crate) fn part_path(&self) -> PathBuf {
        self.path.with_file_name(self.part_name())
    }
}

/// Whether two paths name the same existing file.
pub(crate) fn is_same_file(one: &Path, other: &Path) -> bool {
    let of = |path: &Path| rustix::fs::statat(CWD, path, AtFlags::empty()).map(|stat| (stat.st_dev, stat.st_ino));
    matches!((of(one), of(other)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::FileStamp;

    fn name(text: &str) -> FileName {
        text.parse().unwrap()
    }

    #[test]
    fn a_directory_takes_the_file_under_its_own_name() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        assert_eq!(Destination::resolve(dir.path(), &name("f")).unwrap().path(), base.join("f"));
        let renamed = Destination::resolve(&dir.path().join("g"), &name("f")).unwrap();
        assert_eq!(renamed.path(), base.join("g"));
        assert!(Destination::resolve(&dir.path().join("no/g"), &name("f")).is_err());
    }

    #[test]
    fn a_link_in_the_partial_files_place_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, b"precious").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join(".f.part")).unwrap();
        let destination = Destination::resolve(dir.path(), &name("f")).unwrap();
        assert!(destination.create_part().is_err());
        assert!(destination.reopen_part().is_err());
        assert_eq!(std::fs::read(victim).unwrap(), b"precious");
    }

    #[test]
    fn finishing_replaces_nothing_unless_asked() {
        let dir = tempfile::tempdir().unwrap();
        let destination = Destination::resolve(dir.path(), &name("f")).unwrap();
        let part = destination.create_part().unwrap();
        std::fs::write(destination.path(), b"mine").unwrap();
        assert_eq!(destination.finish(&part, false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(destination.path()).unwrap(), b"mine");
        destination.finish(&part, true).unwrap();
        assert_eq!(std::fs::read(destination.path()).unwrap(), b"");
        assert!(!destination.part_path().exists());
    }

    #[test]
    fn only_the_verified_file_gets_the_final_name() {
        let dir = tempfile::tempdir().unwrap();
        let destination = Destination::resolve(dir.path(), &name("f")).unwrap();
        let part = destination.create_part().unwrap();
        std::fs::remove_file(destination.part_path()).unwrap();
        assert_eq!(destination.finish(&part, true).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(destination.part_path(), b"somebody else's").unwrap();
        assert_eq!(destination.finish(&part, true).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!destination.exists());
    }

    #[test]
    fn a_partial_file_of_somebody_else_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let destination = Destination::resolve(dir.path(), &name("f")).unwrap();
        std::fs::write(destination.part_path(), b"precious").unwrap();
        let inode = FileStamp::at(&destination.part_path()).unwrap().inode;
        destination.remove_part(inode + 1).unwrap();
        assert!(destination.part_path().exists());
        destination.remove_part(inode).unwrap();
        assert!(!destination.part_path().exists());
    }

    #[test]
    fn the_longest_name_has_a_partial_file_too() {
        let dir = tempfile::tempdir().unwrap();
        for long in ["é".repeat(127), "x".repeat(255)] {
            let destination = Destination::resolve(dir.path(), &name(&long)).unwrap();
            let part = destination.create_part().unwrap();
            destination.finish(&part, false).unwrap();
            assert!(destination.path().exists());
        }
    }
}
