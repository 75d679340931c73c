//! A chip as the board of a program.

use core::convert::Infallible;
use core::pin::pin;

use embassy_futures::poll_once;
use esp_hal::Async;
use esp_hal::gpio::{Input, InputConfig, InputPin, Level, Output, OutputConfig, OutputPin, Pull};
use esp_hal::time::Instant;
use esp_hal::timer::OneShotTimer;
use torch_nano_device::{Board, Event, Report, Sampled};
use torch_nano_sensors::{Button, Sensor};

use crate::port::{self, Port};

/// The button bounces for 20 ms at most, and was pressed as often as meant once 0.6 s have passed.
const BOUNCE: u64 = 20_000;
const PRESSED: u64 = 600_000;
/// The longest sleep: the button and the port are asked as often.
const NAP: u64 = 5_000;
/// For so long after a byte the chip does not sleep, as more are on their way: a FIFO holds 64 of them.
const CONVERSATION: u64 = 20_000;
/// For so long it waits for a PC to take a byte; a report is dropped then.
const PATIENCE: u64 = 2_000;

/// The chip with its port, a sensor, a button and a light.
pub(crate) struct Chip<S> {
    port: Port,
    sensor: S,
    timer: OneShotTimer<'static, Async>,
    pin: Input<'static>,
    button: Button,
    light: Output<'static>,
    /// When a byte has arrived latest.
    heard: u64,
    /// Whether the latest byte offered was taken.
    listens: bool,
}

impl<S: Sensor> Chip<S> {
    /// The button connects its pin with ground; the light is on while a class is decided.
    pub(crate) fn new(
        port: Port,
        sensor: S,
        timer: OneShotTimer<'static, Async>,
        button: impl InputPin + 'static,
        light: impl OutputPin + 'static,
    ) -> Self {
        Chip {
            port,
            sensor,
            timer,
            pin: Input::new(button, InputConfig::default().with_pull(Pull::Up)),
            button: Button::new(BOUNCE, PRESSED),
            light: Output::new(light, Level::Low, OutputConfig::default()),
            heard: 0,
            listens: true,
        }
    }
}

impl<S: Sensor> Board for Chip<S> {
    type Error = Infallible;

    fn now(&mut self) -> u64 {
        Instant::now().duration_since_epoch().as_micros()
    }

    fn sleep(&mut self, until: u64) {
        let now = self.now();
        if now < self.heard + CONVERSATION {
            return;
        }
        let time = until.saturating_sub(now).min(NAP) as u32;
        let mut over = pin!(self.timer.delay_micros_async(time));
        // Interrupts are off between the look and the sleep: one that comes there still ends the sleep.
        while critical_section::with(|_| {
            let sleeps = poll_once(over.as_mut()).is_pending();
            if sleeps {
                wait_for_interrupt();
            }
            sleeps
        }) {}
    }

    fn sample(&mut self, sample: &mut [f32]) -> Sampled {
        self.sensor.sample(sample)
    }

    fn pressed(&mut self) -> Option<u16> {
        let now = self.now();
        self.button.update(now, self.pin.is_low())
    }

    fn show(&mut self, report: &Report) {
        if let Event::Sensed(sensed) = report.event {
            self.light.set_level(sensed.decided.is_some().into());
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let count = port::receive(&mut self.port, buffer);
        if count > 0 {
            self.heard = self.now();
        }
        Ok(count)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        for &byte in bytes {
            let deadline = self.now() + if self.listens { PATIENCE } else { 0 };
            self.listens = loop {
                if port::offer(&mut self.port, byte) {
                    break true;
                }
                if self.now() >= deadline {
                    break false;
                }
            };
            if !self.listens {
                break;
            }
        }
        port::send(&mut self.port);
        Ok(())
    }
}

fn wait_for_interrupt() {
    #[cfg(target_arch = "riscv32")]
    riscv::asm::wfi();
}
