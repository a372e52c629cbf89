//! Loop devices: a file as a block device, read and written without the page cache.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, StatxFlags, statx};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Setter, ioctl};

const GET_FREE: Opcode = 0x4C82;
const CONFIGURE: Opcode = 0x4C0A;
/// The device is given up by itself when nothing uses it any more.
const AUTOCLEAR: u32 = 4;
const DIRECT_IO: u32 = 16;
/// Another program may take the device that was free a moment ago.
const ATTEMPTS: usize = 32;

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo>() == 232 && size_of::<LoopConfig>() == 304);

/// Asks for the number of a device that nobody uses.
struct GetFree;

// SAFETY: the call takes no argument and returns a number.
unsafe impl Ioctl for GetFree {
    type Output = u32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        GET_FREE
    }

    fn as_ptr(&mut self) -> *mut core::ffi::c_void {
        core::ptr::null_mut()
    }

    unsafe fn output_from_ptr(number: IoctlOutput, _: *mut core::ffi::c_void) -> rustix::io::Result<u32> {
        u32::try_from(number).map_err(|_| rustix::io::Errno::INVAL)
    }
}

/// A file as a block device. Ends with this value and everything that is mounted from it.
#[derive(Debug)]
pub(super) struct LoopDevice {
    pub(super) path: PathBuf,
    /// Without it the device would end before something is mounted from it.
    _open: File,
}

impl LoopDevice {
    /// Makes a block device of a file, with direct I/O: what is in it is cached once, by what is mounted from it.
    pub(super) fn attach(file: &File) -> io::Result<LoopDevice> {
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        let block_size = sector_size(file);
        for _ in 0..ATTEMPTS {
            // SAFETY: the descriptor is that of the loop driver's control device, which has this call.
            let number = unsafe { ioctl(&control, GetFree) }?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            make_node(&path, number)?;
            let options = OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(&path);
            let device = match options {
                Ok(device) => device,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            // SAFETY: both are plain numbers, for which zero is a value.
            let mut config: LoopConfig = unsafe { core::mem::zeroed() };
            config.fd = u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?;
            config.block_size = block_size;
            config.info.flags = AUTOCLEAR | DIRECT_IO;
            // SAFETY: the call reads a `loop_config`, which this is, and the file is open until it returned.
            match unsafe { ioctl(&device, Setter::<CONFIGURE, LoopConfig>::new(config)) } {
                Ok(()) => return Ok(LoopDevice { path, _open: device }),
                Err(rustix::io::Errno::BUSY) => continue,
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(io::Error::other("other programs took every free loop device"))
    }
}

/// Where no daemon makes device nodes, a new device has none.
fn make_node(path: &std::path::Path, number: u32) -> io::Result<()> {
    const LOOP_MAJOR: u32 = 7;
    match rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        rustix::fs::FileType::BlockDevice,
        rustix::fs::Mode::from_raw_mode(0o600),
        rustix::fs::makedev(LOOP_MAJOR, number),
    ) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The unit in which the file below can be read and written directly. Programs that use direct I/O on
/// what is mounted see it too, so it is no larger than it must be.
pub(super) fn sector_size(file: &File) -> u32 {
    let aligned = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        .ok()
        .filter(|seen| seen.stx_mask & StatxFlags::DIOALIGN.bits() != 0)
        .map_or(0, |seen| seen.stx_dio_offset_align);
    if aligned > 512 { 4096 } else { 512 }
}
