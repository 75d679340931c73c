//! A model, its head and its flash: what a program on the board calls.

use embedded_storage::nor_flash::NorFlash;
use nano_core::Model;
use nano_core::image::Image;
use nano_core::train::{AnyHead, Head};
use zerocopy::IntoBytes;

use crate::failure::Failure;
use crate::graph;
use crate::learner::Learner;
use crate::message::{Settings, Stats};
use crate::names;
use crate::sensing::LatestWindow;
use crate::storage::HeadStorage;
use crate::updating::Updates;
use crate::window::Input;

/// A model that predicts, and a head that learns, in the RAM of a [`Session`](crate::Session).
///
/// Each call does one whole step, or refuses it and changes nothing. Calls of several owners may come in any order: those of the board's own program, and those
/// that a [`Link`](crate::Link) makes for a PC. A call that runs the model discards an input of which a PC has sent only parts, and the outputs that a PC has
/// not read: it gets [`Failure::Order`] or [`Failure::NoRun`], never a mixture. A model with states has one stream, of all owners.
///
/// ```
/// use nano_core::{CheckedImage, ops};
/// use torch_nano_device::{Failure, NoFlash, Options, Session, Settings, SpareCopy};
///
/// /// Shows the device a window of each class, trains, and predicts.
/// fn personalize(image: CheckedImage<'_>, ram: &mut [u32], windows: &[&[i8]]) -> Result<u32, Failure> {
///     let options = Options { ring: 128, frame: 512, copy: SpareCopy::Flash, settings: Settings::default() };
///     let Session { mut device, .. } = Session::<_, _>::new(image, ram, options, NoFlash, || 0)?;
///     for (class, &window) in (0..).zip(windows) {
///         device.learn(window, class)?;
///     }
///     device.begin_training(0, 20)?;
///     while device.train_slice()?.left > 0 {
///         // Between two slices a program samples its sensor, and predicts.
///     }
///     device.save(false)?;
///     Ok(device.predict(windows[0])?.class)
/// }
/// ```
pub struct Device<'a, C, F, H = AnyHead<'a>> {
    pub(crate) model: Model<'a>,
    pub(crate) learner: Option<Learner<'a, H>>,
    pub(crate) storage: HeadStorage<F>,
    pub(crate) settings: Settings,
    pub(crate) stats: Stats,
    /// Changes of the head since it was last saved.
    pub(crate) unsaved: u32,
    /// Whether it saves only when its program calls [`Device::save_if_due`].
    pub(crate) saves_held: bool,
    /// Whether it started with a saved head.
    pub(crate) restored: bool,
    pub(crate) counter: C,
    pub(crate) layers: &'a mut [u32],
    /// Whether `layers` holds counts.
    pub(crate) profiled: bool,
    /// Whether the model's first output is a softmax.
    pub(crate) ends_in_softmax: bool,
    /// Bytes of tensors that a frame takes.
    pub(crate) frame: usize,
    /// Bytes of the next input that have arrived from a PC in parts.
    pub(crate) arrived: usize,
    /// Whether the arena holds the outputs of a run for a PC.
    pub(crate) ran: bool,
    /// The number of the training that a PC began last.
    pub(crate) asked: Option<u32>,
    /// On a device that senses by itself.
    pub(crate) latest: Option<LatestWindow<'a>>,
    /// On a device whose model can be updated.
    pub(crate) updates: Option<Updates<'a>>,
    /// Whether a PC has asked for a restart.
    pub(crate) restarts: bool,
}

/// What the model and the head make of an input.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Prediction<'d> {
    /// Index of the largest logit (with a head), or of the largest element of the first output; the first element of an output of indices.
    pub class: u32,
    /// Its probability in Q15 ([`nano_core::train::certainty`]); `None` for a head whose classes do not exclude each other, and for an output of indices.
    pub confidence: Option<u16>,
    /// By how much it exceeds that of the second class, in Q15: a label would help most where it is least. `None` as the confidence.
    pub margin: Option<u16>,
    /// Whether the input is of any class that the head knows ([`nano_core::train::Rejection`]), and the confidence not below [`Settings::rejection`].
    pub known: bool,
    /// What the board's counter advanced during the run: instructions or cycles.
    pub ticks: u64,
    /// Real step of one unit of a logit.
    pub logit_scale: f32,
    /// The head's logits; empty without one.
    pub logits: &'d [i32],
    /// The graph's first output as [`Model::output`] has it; with a head: the features.
    pub output: &'d [i8],
}

/// The graph's first output for an input, and its cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Features<'d> {
    /// What the board's counter advanced during the run.
    pub ticks: u64,
    /// The output as [`Model::output`] has it.
    pub output: &'d [i8],
}

impl<'a, C: FnMut() -> u64, F: NorFlash, H: Head<'a>> Device<'a, C, F, H> {
    /// The model's image: its inputs, outputs, names and scales.
    pub fn image(&self) -> &Image<'a> {
        self.model.image()
    }

    /// The flash of heads.
    pub fn flash(&self) -> &F {
        self.storage.flash()
    }

    /// Counters since the start.
    pub fn stats(&self) -> Stats {
        let taken_back = self.learner.as_ref().map_or(0, |learner| learner.taken_back);
        Stats { taken_back, ..self.stats }
    }

    /// How the device behaves.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Sets how the device behaves; saved with the head.
    pub fn configure(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Whether it started with a head that was saved.
    pub fn restored(&self) -> bool {
        self.restored
    }

    /// The head, unless the model has none.
    pub fn head(&self) -> Option<&H> {
        self.learner.as_ref().map(|learner| &learner.head)
    }

    /// The name of a class: the one given on the device, or the image's; empty if it has none.
    ///
    /// # Errors
    /// [`Failure::NoHead`]; [`Failure::Label`] if the head has no such class.
    pub fn class_name(&self, class: u16) -> Result<&str, Failure> {
        let learner = self.learner.as_ref().ok_or(Failure::NoHead)?;
        learner.known(class.into())?;
        Ok(names::name(self.model.image(), learner.names, class.into()))
    }

    /// Runs the model on `input`, and the head on its features. `input` is the bytes of all inputs of the graph, one after the other, each in NHWC order as
    /// [`Model::input`] has them: a slice, or a [`SlidingWindow`](crate::SlidingWindow).
    ///
    /// # Errors
    /// [`Failure::Input`] if it has another length.
    pub fn predict<'i>(&mut self, input: impl Into<Input<'i>>) -> Result<Prediction<'_>, Failure> {
        self.take_whole_input(input.into())?;
        self.infer()
    }

    /// Runs the model on `input`, as [`Device::predict`] takes it, without the head.
    ///
    /// # Errors
    /// [`Failure::Input`] if it has another length.
    pub fn features<'i>(&mut self, input: impl Into<Input<'i>>) -> Result<Features<'_>, Failure> {
        self.take_whole_input(input.into())?;
        Ok(self.extract())
    }

    /// The graph output with this index after the latest run, as [`Model::output`] has it.
    ///
    /// # Errors
    /// [`Failure::GraphValue`] if the graph does not have that many.
    pub fn output(&self, index: usize) -> Result<&[i8], Failure> {
        let count = self.model.image().output_count();
        if index < count { Ok(self.model.output(index)) } else { Err(Failure::GraphValue { count: count as u32 }) }
    }

    /// Sets the states of the model, which live from run to run, to their start.
    pub fn reset_states(&mut self) {
        self.model.reset();
        // They may be outputs of the last run.
        self.ran = false;
    }

    /// Copies `input` into the graph's inputs.
    pub(crate) fn take_whole_input(&mut self, input: Input<'_>) -> Result<(), Failure> {
        let needed = graph::input_length(self.model.image());
        if input.len() != needed {
            return Err(Failure::Input { needed: needed as u32, given: input.len() as u32 });
        }
        graph::write_inputs(&mut self.model, 0, input.first.as_bytes());
        graph::write_inputs(&mut self.model, input.first.len(), input.second.as_bytes());
        (self.arrived, self.ran) = (0, false);
        Ok(())
    }

    /// Runs the model on the inputs in the arena; returns what the counter advanced.
    pub(crate) fn run(&mut self) -> u64 {
        self.stats.runs = self.stats.runs.wrapping_add(1);
        let start = (self.counter)();
        self.model.run();
        (self.counter)() - start
    }

    /// [`Device::features`] of the inputs in the arena.
    pub(crate) fn extract(&mut self) -> Features<'_> {
        let ticks = self.run();
        Features { ticks, output: self.model.output(0) }
    }

    /// [`Device::predict`] of the inputs in the arena.
    pub(crate) fn infer(&mut self) -> Result<Prediction<'_>, Failure> {
        self.stats.runs = self.stats.runs.wrapping_add(1);
        let start = (self.counter)();
        self.model.run();
        let (output, value) = (self.model.output(0), self.model.image().output(0));
        let logits = self.learner.as_mut().map(|learner| learner.logits(output)).transpose()?;
        let ticks = (self.counter)() - start;
        let made = match logits {
            None => nano_core::Prediction::of_output(value, output, self.ends_in_softmax),
            Some(logits) => nano_core::Prediction::of_logits(logits),
        };
        let (logits, logit_scale) = logits.map_or((&[][..], value.scale), |logits| (logits.values, logits.scale));
        let nano_core::Prediction { class, confidence, margin, known } = made;
        let known = known && confidence.is_none_or(|confidence| confidence >= self.settings.rejection);
        Ok(Prediction { class, confidence, margin, known, ticks, logit_scale, logits, output })
    }
}
