//! An I2S microphone, such as INMP441 or SPH0645: BCLK at GPIO 5, WS at GPIO 6, its data at GPIO 4, L/R low. A sample is a block of 10 ms.

use esp_hal::Blocking;
use esp_hal::dma::DmaRxStreamBuf;
use esp_hal::i2s::master::{I2sRx, I2sRxDmaTransfer};
use torch_nano_device::Sampled;
use torch_nano_sensors::Sensor;

/// Numbers a second, and of a block.
pub(crate) const RATE: u32 = 16_000;
const BLOCK: usize = 160;
/// Bytes of a number, and of the left and the right channel.
const NUMBER: usize = 2;
const FRAME: usize = 2 * NUMBER;

/// A microphone on the left channel: numbers from -1 to 1.
pub(crate) struct Microphone {
    state: Option<State>,
}

enum State {
    Stopped(I2sRx<'static, Blocking>, DmaRxStreamBuf),
    Running(I2sRxDmaTransfer<'static, Blocking, DmaRxStreamBuf>),
}

impl Microphone {
    /// A microphone whose numbers are received into `buffer`, some blocks long.
    pub(crate) fn new(receiver: I2sRx<'static, Blocking>, buffer: DmaRxStreamBuf) -> Self {
        Microphone { state: Some(State::Stopped(receiver, buffer)) }
    }
}

impl Sensor for Microphone {
    const NUMBERS: usize = BLOCK;

    /// A block is due when it is complete, but for the drift of two clocks: it waits for the rest. After a buffer that ran full it begins anew.
    fn sample(&mut self, sample: &mut [f32]) -> Sampled {
        let (mut transfer, sampled) = match self.state.take() {
            Some(State::Running(transfer)) if !transfer.is_done() => (transfer, Sampled::Taken),
            Some(State::Running(transfer)) => {
                let (receiver, buffer) = transfer.stop();
                self.state = Some(State::Stopped(receiver, buffer));
                return Sampled::Failed;
            }
            Some(State::Stopped(receiver, buffer)) => match receiver.read(buffer) {
                Ok(transfer) => (transfer, Sampled::AfterGap),
                Err((_, receiver, buffer)) => {
                    self.state = Some(State::Stopped(receiver, buffer));
                    return Sampled::Failed;
                }
            },
            None => return Sampled::Failed,
        };
        while transfer.available_bytes() < BLOCK * FRAME && !transfer.is_done() {}
        let mut bytes = [0; BLOCK * FRAME];
        let complete = transfer.pop(&mut bytes) == bytes.len();
        for (own, frame) in sample.iter_mut().zip(bytes.as_chunks::<FRAME>().0) {
            *own = f32::from(i16::from_le_bytes([frame[0], frame[1]])) / 32768.0;
        }
        self.state = Some(State::Running(transfer));
        if complete { sampled } else { Sampled::Failed }
    }
}

/// The sensor, with the chip's peripherals.
macro_rules! open {
    ($peripherals:ident) => {{
        use esp_hal::i2s::master::{Channels, DataFormat, I2s, TdmConfig};
        let config = TdmConfig::new_tdm_philips()
            .with_sample_rate(esp_hal::time::Rate::from_hz($crate::sensing::sensor::RATE))
            .with_data_format(DataFormat::Data16Channel16)
            .with_channels(Channels::STEREO);
        let i2s = I2s::new($peripherals.I2S0, $peripherals.DMA_CH0, config);
        let receiver = i2s.expect("every clock of the chip makes 16 kHz").i2s_rx;
        let receiver = receiver.with_bclk($peripherals.GPIO5).with_ws($peripherals.GPIO6).with_din($peripherals.GPIO4);
        $crate::sensing::sensor::Microphone::new(receiver.build(), esp_hal::dma_rx_stream_buffer!(4096, 1024))
    }};
}
pub(crate) use open;
