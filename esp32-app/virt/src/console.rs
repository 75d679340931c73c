//! The board's virtio console as a byte stream.
//!
//! Faster than the board's UART: QEMU takes about 10 µs for each byte of the UART, but transfers 4 KiB at a time here.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use embedded_io::{ErrorType, Read, ReadReady, Write};
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::mmio::MmioTransport;
use virtio_drivers::transport::{DeviceStatus, Transport};
use virtio_drivers::{BufferDirection, Error, Hal, PAGE_SIZE, PhysAddr};

/// The board's first virtio slot, to which `torch_nano.device.transport.qemu` attaches the console, and the slot's interrupt number.
const SLOT: NonNull<u8> = NonNull::new(0x1000_1000 as *mut u8).unwrap();
const SLOT_SIZE: usize = 0x1000;
const INTERRUPT: usize = 1;

/// The interrupt controller (PLIC): priority of the interrupt, and machine mode's enabled interrupts and claim.
const PLIC_PRIORITY: *mut u32 = (0x0c00_0000 + 4 * INTERRUPT) as *mut u32;
const PLIC_ENABLE: *mut u32 = 0x0c00_2000 as *mut u32;
const PLIC_CLAIM: *mut u32 = 0x0c20_0004 as *mut u32;

/// The feature bit of devices with more than one port. The program uses port 1: on port 0, meant for consoles, QEMU drops bytes while the
/// reader is slow.
const MULTIPORT: u64 = 1 << 1;
/// The queues of port 1, and the control queue to the device.
const RECEIVE: u16 = 4;
const TRANSMIT: u16 = 5;
const CONTROL: u16 = 3;
/// Control messages: port (u32), event (u16: 0 device ready, 3 port ready, 6 port open), value (u16).
const OPEN_PORT_1: [[u8; 8]; 3] = [[0, 0, 0, 0, 0, 0, 1, 0], [1, 0, 0, 0, 3, 0, 1, 0], [1, 0, 0, 0, 6, 0, 1, 0]];

/// The console.
pub struct Console {
    transport: MmioTransport<'static>,
    receive: VirtQueue<Memory, 2>,
    transmit: VirtQueue<Memory, 2>,
    /// The receive buffer, lent to QEMU while it has no unread bytes.
    buffer: &'static mut [u8],
    /// The range of unread bytes in `buffer`.
    unread: core::ops::Range<usize>,
    lent: u16,
}

impl Console {
    /// Opens the board's console. There is one: call this once.
    pub fn new() -> Result<Self, Error> {
        // SAFETY: the registers of a virtio slot of this board; nothing else uses them.
        let mut transport = unsafe { MmioTransport::new(SLOT.cast(), SLOT_SIZE) }.map_err(|_| Error::IoError)?;
        transport.set_status(DeviceStatus::empty());
        transport.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER);
        transport.write_driver_features(MULTIPORT);
        transport.set_guest_page_size(PAGE_SIZE as u32);
        let receive = VirtQueue::new(&mut transport, RECEIVE, false, false)?;
        let transmit = VirtQueue::new(&mut transport, TRANSMIT, false, false)?;
        let mut control = VirtQueue::<Memory, 2>::new(&mut transport, CONTROL, false, false)?;
        transport.finish_init();
        for message in OPEN_PORT_1 {
            control.add_notify_wait_pop(&[&message], &mut [], &mut transport)?;
        }
        // Never dropped, as QEMU goes on using the queue's memory.
        core::mem::forget(control);
        let (_, page) = Memory::dma_alloc(1, BufferDirection::DeviceToDriver);
        // SAFETY: a page that nothing else uses.
        let buffer = unsafe { NonNull::slice_from_raw_parts(page, PAGE_SIZE).as_mut() };
        // SAFETY: registers of this board's PLIC; nothing else uses them.
        unsafe {
            PLIC_PRIORITY.write_volatile(1);
            PLIC_ENABLE.write_volatile(1 << INTERRUPT);
            // The interrupt only wakes `wfi`: interrupts are globally disabled, so none is taken.
            riscv::register::mie::set_mext();
        }
        let mut console = Self { transport, receive, transmit, buffer, unread: 0..0, lent: 0 };
        console.lend()?;
        Ok(console)
    }

    fn lend(&mut self) -> Result<(), Error> {
        // SAFETY: nothing accesses the buffer until `wait` has taken it back.
        self.lent = unsafe { self.receive.add(&[], &mut [self.buffer]) }?;
        self.transport.notify(RECEIVE);
        Ok(())
    }

    /// Waits until bytes have arrived.
    pub fn wait(&mut self) {
        while self.unread.is_empty() && !self.receive.can_pop() {
            self.transport.ack_interrupt();
            // SAFETY: a register of this board's PLIC: reading claims the interrupt, writing it back completes it.
            unsafe { PLIC_CLAIM.write_volatile(PLIC_CLAIM.read_volatile()) }
            // Checked again: bytes that arrived before the interrupt was cleared do not wake the hart.
            if !self.receive.can_pop() {
                riscv::asm::wfi();
            }
        }
    }

    /// Takes back the buffer with the bytes that have arrived.
    fn take_back(&mut self) -> Result<(), Error> {
        // SAFETY: the same buffer that `lend` has added; the caller has seen that QEMU has returned it.
        let count = unsafe { self.receive.pop_used(self.lent, &[], &mut [self.buffer]) }?;
        self.unread = 0..self.buffer.len().min(count as usize);
        Ok(())
    }
}

impl ErrorType for Console {
    type Error = Error;
}

impl Read for Console {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.unread.is_empty() {
            self.wait();
            self.take_back()?;
        }
        let mut unread: &[u8] = self.buffer.get(self.unread.clone()).unwrap_or_default();
        let Ok(count) = unread.read(buffer);
        self.unread.start += count;
        if self.unread.is_empty() {
            self.lend()?;
        }
        Ok(count)
    }
}

impl ReadReady for Console {
    fn read_ready(&mut self) -> Result<bool, Error> {
        Ok(!self.unread.is_empty() || self.receive.can_pop())
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        if !bytes.is_empty() {
            self.transmit.add_notify_wait_pop(&[bytes], &mut [], &mut self.transport)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// The memory that the queues share with QEMU: a pool of pages, each handed out once. All addresses are physical.
struct Memory;

const PAGES: usize = 8;

#[repr(align(4096))]
struct Pages(core::cell::UnsafeCell<[[u8; PAGE_SIZE]; PAGES]>);

// SAFETY: `dma_alloc` hands each page out once.
unsafe impl Sync for Pages {}

static POOL: Pages = Pages(core::cell::UnsafeCell::new([[0; PAGE_SIZE]; PAGES]));
static USED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: pages are aligned, zeroed at the start, and never handed out twice (one hart, no interrupts).
unsafe impl Hal for Memory {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let first = USED.load(Ordering::Relaxed);
        if pages > PAGES - first {
            // Out of pages: virtio-drivers takes address 0 as a failed allocation.
            return (0, NonNull::dangling());
        }
        USED.store(first + pages, Ordering::Relaxed);
        // SAFETY: not null, and inside the pool, as checked.
        let page = unsafe { NonNull::new_unchecked(POOL.0.get()).cast::<u8>().add(first * PAGE_SIZE) };
        (page.addr().get() as PhysAddr, page)
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        // Pages are handed out once.
        0
    }

    unsafe fn mmio_phys_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
        panic!("the board has no PCI")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.addr().get() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
