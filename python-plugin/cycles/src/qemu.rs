//! The plugin as QEMU loads it: the functions of its plugin interface that are needed (`include/qemu/qemu-plugin.h` in QEMU's sources).
//!
//! The interface has versions. Of what is needed, 1 (QEMU 7.2 to 8.2) and 2 (9.0) differ in nothing; since 3 (9.1), `qemu_plugin_insn_data` copies.
//! A plugin states its version before it is called, and QEMU takes those from a least one to its own: 1 until 8.2, 2 to now.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};

use crate::arguments::Arguments;
use crate::instruction::{Instruction, Kind};
use crate::model::{Counts, Model};

/// The version of the interface for which the plugin is made. QEMU reads it after it has loaded the plugin.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static qemu_plugin_version: AtomicI32 = AtomicI32::new(1);

/// Called by the dynamic linker, so before QEMU reads the version.
#[used]
#[unsafe(link_section = ".init_array")]
static CHOOSE_VERSION: extern "C" fn() = {
    extern "C" fn choose() {
        // SAFETY: looks a name up in the program that loads the plugin; it is new in version 2.
        let newer = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"qemu_plugin_scoreboard_new".as_ptr()) };
        if !newer.is_null() {
            qemu_plugin_version.store(2, Ordering::Relaxed);
        }
    }
    choose
};

/// The first fields of what QEMU says about itself.
#[repr(C)]
pub struct Info {
    target: *const c_char,
    least_version: c_int,
    version: c_int,
}

/// The first version in which `qemu_plugin_insn_data` copies the bytes of an instruction.
const COPIES: c_int = 3;

/// A translated block, and an instruction of it, while the block is translated.
#[repr(C)]
pub struct Block(c_void);
#[repr(C)]
struct Handle(c_void);

const CALLBACK_WITHOUT_REGISTERS: c_int = 0;
/// QEMU 7.2 reports no load to a callback that asks for loads alone.
const LOADS_AND_STORES: c_int = 3;

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, translated: extern "C" fn(u64, *mut Block));
    fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Handle;
    fn qemu_plugin_insn_vaddr(handle: *const Handle) -> u64;
    fn qemu_plugin_insn_size(handle: *const Handle) -> usize;
    /// Copies the bytes into a buffer; before version [`COPIES`], ignores the buffer and returns their address.
    fn qemu_plugin_insn_data(handle: *const Handle, buffer: *mut u8, length: usize) -> usize;
    fn qemu_plugin_register_vcpu_insn_exec_cb(
        handle: *mut Handle,
        executed: extern "C" fn(c_uint, *mut c_void),
        flags: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_register_vcpu_mem_cb(
        handle: *mut Handle,
        accessed: extern "C" fn(c_uint, u32, u64, *mut c_void),
        flags: c_int,
        accesses: c_int,
        data: *mut c_void,
    );
}

struct Plugin {
    model: Model,
    /// As it was at the latest read of the counter.
    read: Model,
    /// All that were translated; callbacks get their index.
    instructions: Vec<Instruction>,
    out: File,
    /// Whether `qemu_plugin_insn_data` copies.
    copies: bool,
}

impl Plugin {
    /// Writes the counts. If the file was emptied, what was executed since the latest read is left out first: how long a board waits for a request,
    /// and with what code, is up to the PC.
    fn read_counter(&mut self) -> std::io::Result<()> {
        if self.out.metadata()?.len() == 0 {
            self.model.clone_from(&self.read);
            write_row(&mut self.out, Counts::COLUMNS)?;
        }
        write_row(&mut self.out, self.model.counts())?;
        self.read.clone_from(&self.model);
        Ok(())
    }
}

static PLUGIN: OnceLock<Mutex<Plugin>> = OnceLock::new();

/// The plugin; the board has one CPU, so nothing waits for it.
fn plugin() -> MutexGuard<'static, Plugin> {
    let plugin = PLUGIN.get().expect("QEMU installs a plugin before it calls it");
    plugin.lock().expect("a panic ends the process")
}

/// Called by QEMU once, with the plugin's arguments; returns 0, or 1 if the plugin cannot work.
///
/// # Safety
/// `info` points to an [`Info`], `arguments` to `count` strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    info: *const Info,
    count: c_int,
    arguments: *const *const c_char,
) -> c_int {
    // SAFETY: QEMU gives `count` strings, which end in zeros and live as long as the plugin.
    let given = (0..count as usize).map(|index| unsafe { CStr::from_ptr(*arguments.add(index)) });
    // SAFETY: QEMU gives a valid one.
    let copies = unsafe { (*info).version } >= COPIES;
    if let Err(error) = start(given, copies) {
        eprintln!("the cycle model cannot start: {error}");
        return 1;
    }
    // SAFETY: `id` is this plugin's.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, translated) };
    0
}

fn start<'a>(given: impl Iterator<Item = &'a CStr>, copies: bool) -> Result<(), String> {
    let given: Vec<_> = given.map(CStr::to_string_lossy).collect();
    let Arguments { chip, out: path } = Arguments::parse(given.iter().map(|argument| argument.as_ref()))?;
    let failed = |error| format!("{path}: {error}");
    let mut out = OpenOptions::new().append(true).open(&path).map_err(failed)?;
    write_row(&mut out, Counts::COLUMNS).map_err(failed)?;
    let model = Model::new(chip);
    let plugin = Plugin { read: model.clone(), model, instructions: Vec::new(), out, copies };
    PLUGIN.set(Mutex::new(plugin)).map_err(|_| "it is loaded twice".to_owned())
}

/// In one piece: the reader sees whole rows.
fn write_row(out: &mut File, row: impl Display) -> std::io::Result<()> {
    out.write_all(format!("{row}\n").as_bytes())
}

extern "C" fn translated(_: u64, block: *mut Block) {
    let mut plugin = plugin();
    // SAFETY: the block is valid during this call, and its instructions and their bytes with it.
    unsafe {
        for index in 0..qemu_plugin_tb_n_insns(block) {
            let handle = qemu_plugin_tb_get_insn(block, index);
            let (mut buffer, size) = ([0; 4], qemu_plugin_insn_size(handle));
            let returned = qemu_plugin_insn_data(handle, buffer.as_mut_ptr(), buffer.len());
            if !plugin.copies {
                std::ptr::with_exposed_provenance::<u8>(returned).copy_to(buffer.as_mut_ptr(), size.min(4));
            }
            let instruction = Instruction::decode(qemu_plugin_insn_vaddr(handle) as u32, &buffer[..size.min(4)]);
            let data = std::ptr::without_provenance_mut(plugin.instructions.len());
            plugin.instructions.push(instruction);
            qemu_plugin_register_vcpu_insn_exec_cb(handle, executed, CALLBACK_WITHOUT_REGISTERS, data);
            if matches!(instruction.kind, Kind::Load { .. }) {
                qemu_plugin_register_vcpu_mem_cb(handle, loaded, CALLBACK_WITHOUT_REGISTERS, LOADS_AND_STORES, data);
            }
        }
    }
}

/// Before the instruction of an index is executed.
extern "C" fn executed(_: c_uint, index: *mut c_void) {
    let plugin = &mut *plugin();
    let instruction = plugin.instructions[index.addr()];
    if instruction.kind == Kind::ReadCounter {
        plugin.read_counter().expect("the file of the counts can be written");
    }
    plugin.model.execute(&instruction);
}

/// After the instruction of an index has loaded from an address.
extern "C" fn loaded(_: c_uint, _: u32, address: u64, _: *mut c_void) {
    plugin().model.load(address as u32);
}
