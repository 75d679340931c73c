//! A model, its head and its flash, and what each request does with them.

use embedded_storage::nor_flash::NorFlash;
use nano_core::Model;
use nano_core::image::{Dtype, Value};
use nano_core::train::{Head, Target, confidence};
use zerocopy::IntoBytes;

use crate::failure::Failure;
use crate::graph::{self, Elements};
use crate::learner::Learner;
use crate::message::{Block, Request, Response, Settings, Stats};
use crate::names;
use crate::storage::HeadStorage;

/// The state that outlives a request.
pub(crate) struct Device<'a, C, F, H> {
    pub model: Model<'a>,
    pub learner: Option<Learner<'a, H>>,
    pub storage: HeadStorage<F>,
    pub settings: Settings,
    pub stats: Stats,
    /// Changes of the head since it was last saved.
    pub unsaved: u32,
    /// Whether it started with a saved head.
    pub restored: bool,
    pub counter: C,
    pub layers: &'a mut [u32],
    /// Whether `layers` holds counts.
    pub profiled: bool,
    /// Whether the model's first output is a softmax.
    pub ends_in_softmax: bool,
    /// Bytes of tensors that a frame takes.
    pub frame: usize,
    /// Bytes of the next input that have arrived in parts.
    pub arrived: usize,
    /// Whether the arena holds the outputs of a run.
    pub ran: bool,
}

impl<'a, C: FnMut() -> u64, F: NorFlash, H: Head<'a>> Device<'a, C, F, H> {
    /// Answers a request. A refused one changes nothing.
    pub fn respond(&mut self, request: Request<'_>) -> Result<Response<'_>, Failure> {
        match request {
            Request::Begin => {
                self.end_training();
                Ok(self.reset_states())
            }
            Request::Info => Ok(self.info()),
            Request::Describe { value } => graph::describe(self.model.image(), value),
            Request::Predict { input } => self.predict(input),
            Request::Features { input } => {
                let ticks = self.run(input)?;
                let output = self.model.output(0).as_bytes();
                Ok(Response::Features { ticks, output: start(output, self.frame) })
            }
            Request::Profile { input } => self.profile(input),
            Request::Input { offset, bytes } => self.take_input(offset, bytes),
            Request::ResetStates => Ok(self.reset_states()),
            Request::Learn { label, input } => self.learn(label, input),
            Request::Train { first_epoch, epochs } => self.train(first_epoch, epochs),
            Request::Continue => self.continue_training(),
            Request::Stop => self.stop_training(),
            Request::Commit => self.commit(),
            Request::Undo => self.undo(),
            Request::AddClass { name } => self.add_class(name),
            Request::Forget { class } => self.forget(class),
            Request::ClassName { class } => {
                let learner = self.learner.as_ref().ok_or(Failure::NoHead)?;
                learner.known(class.into())?;
                Ok(Response::ClassName { name: names::name(self.model.image(), learner.names, class.into()) })
            }
            Request::Reset => self.reset(),
            Request::Save { replace } => {
                let count = self.save(replace)?;
                Ok(Response::Saved { count })
            }
            Request::Load => self.load(),
            Request::Read { block, offset } => self.read(block, offset),
            Request::WriteHead { offset, bytes } => self.write_head(offset, bytes),
            Request::ReplaceHead { checksum } => self.replace_head(checksum),
            Request::Configure { settings } => {
                self.settings = settings;
                Ok(Response::Done)
            }
            Request::Stats => Ok(Response::Stats(self.stats)),
        }
    }

    fn info(&self) -> Response<'_> {
        let image = self.model.image();
        let learner = self.learner.as_ref();
        Response::Info {
            model_id: image.id(),
            name: image.metadata("name").next().unwrap_or_default(),
            inputs: image.input_count() as u32,
            outputs: image.output_count() as u32,
            has_states: image.values().iter().any(Value::is_state),
            input_length: graph::input_length(image) as u32,
            output_length: graph::output_length(image) as u32,
            layers: self.layers.len() as u32,
            classes: learner.map_or(0, |learner| learner.head.classes() as u32),
            class_capacity: learner.map_or(0, |learner| learner.names.len() as u32),
            head_length: learner.map_or(0, |learner| learner.head.state().len() as u32),
            ring_capacity: learner
                .and_then(|learner| learner.samples.as_ref())
                .map_or(0, |samples| samples.ring.capacity() as u32),
            arena_length: image.arena_length() as u32,
            frame_length: self.frame as u32,
            settings: self.settings,
            saved: self.storage.newest(),
            restored: self.restored,
            target: learner.map(|learner| learner.head.target(0).into()),
        }
    }

    /// Completes the inputs with `rest` and runs the model; returns what the counter advanced.
    pub fn run(&mut self, rest: &[u8]) -> Result<u64, Failure> {
        self.complete_input(rest)?;
        let start = (self.counter)();
        self.model.run();
        Ok((self.counter)() - start)
    }

    fn predict(&mut self, input: &[u8]) -> Result<Response<'_>, Failure> {
        self.complete_input(input)?;
        let begin = (self.counter)();
        self.model.run();
        let (output, value) = (self.model.output(0), self.model.image().output(0));
        let (mut exclusive, mut scale) = (true, value.scale);
        let logits = match &mut self.learner {
            Some(learner) => {
                (exclusive, scale) = (matches!(learner.head.target(0), Target::Class(_)), learner.head.logit_scale());
                learner.head.logits(output)?
            }
            None => &[],
        };
        let ticks = (self.counter)() - begin;
        let (output, logits) = (output.as_bytes(), logits.as_bytes());
        let is_softmax = logits.is_empty() && self.ends_in_softmax;
        let made = match logits {
            [] => Elements::new(value.dtype(), output),
            logits => Elements::new(Dtype::Int32, logits),
        };
        // A model that ends in an argmax returns the class itself.
        let is_index = logits.is_empty() && value.holds_indices();
        let class = if is_index { made.clone().next().map_or(0, |index| index as u32) } else { made.clone().largest() };
        let confidence = match exclusive && !is_index {
            false => None,
            // Its output is probability * 256 - 128.
            true if is_softmax => made.clone().nth(class as usize).map(|q| ((q + 128) << 7) as u16),
            true => Some(confidence(made, scale)),
        };
        let known = confidence.is_none_or(|confidence| confidence >= self.settings.rejection);
        let logits = start(logits, self.frame);
        let output = start(output, self.frame - logits.len());
        Ok(Response::Prediction { class, confidence, known, ticks, logit_scale: scale, logits, output })
    }

    fn profile(&mut self, input: &[u8]) -> Result<Response<'_>, Failure> {
        self.complete_input(input)?;
        let Device { model, layers, counter, .. } = self;
        let mut last = counter();
        model.run_observed(|index, _, _| {
            let now = counter();
            if let Some(ticks) = layers.get_mut(index) {
                *ticks = (now - last) as u32;
            }
            last = counter();
        });
        self.profiled = true;
        Ok(Response::Profile { layers: start(self.layers.as_bytes(), self.frame) })
    }

    fn take_input(&mut self, offset: u32, bytes: &[u8]) -> Result<Response<'_>, Failure> {
        let needed = if offset == 0 { 0 } else { self.arrived };
        if offset as usize != needed {
            return Err(Failure::Order { needed: self.arrived as u32, given: offset });
        }
        let length = graph::input_length(self.model.image());
        if bytes.len() > length - needed {
            return Err(Failure::Range { length: length as u32 });
        }
        graph::write_inputs(&mut self.model, needed, bytes);
        (self.arrived, self.ran) = (needed + bytes.len(), false);
        Ok(Response::Received { length: self.arrived as u32 })
    }

    /// Sets the model's states to their start. They may be outputs of the last run.
    fn reset_states(&mut self) -> Response<'static> {
        self.model.reset();
        self.ran = false;
        Response::Done
    }

    /// Completes the inputs: `rest` comes after the parts that have arrived, or is all of them.
    fn complete_input(&mut self, rest: &[u8]) -> Result<(), Failure> {
        let length = graph::input_length(self.model.image());
        let arrived = if rest.len() == length { 0 } else { self.arrived };
        let needed = length - arrived;
        if rest.len() != needed {
            return Err(Failure::Input { needed: needed as u32, given: rest.len() as u32 });
        }
        graph::write_inputs(&mut self.model, arrived, rest);
        (self.arrived, self.ran) = (0, true);
        self.stats.runs = self.stats.runs.wrapping_add(1);
        Ok(())
    }

    fn read(&mut self, block: Block, offset: u32) -> Result<Response<'_>, Failure> {
        let whole = match block {
            Block::Output if self.ran => {
                let length = graph::output_length(self.model.image()) as u32;
                let bytes = graph::read_outputs(&self.model, offset as usize).ok_or(Failure::Range { length })?;
                return Ok(Response::Part { length, changes: self.stats.changes, bytes: start(bytes, self.frame) });
            }
            Block::Layers if self.profiled => self.layers.as_bytes(),
            Block::Logits if self.ran => {
                let learner = self.learner.as_mut().ok_or(Failure::NoHead)?;
                learner.head.logits(self.model.output(0))?.as_bytes()
            }
            Block::Output | Block::Layers | Block::Logits => return Err(Failure::NoRun),
            Block::Head => self.learner.as_ref().ok_or(Failure::NoHead)?.head.state(),
            Block::Channels(index) => graph::channels(self.model.image(), index as usize)?.as_bytes(),
        };
        let length = whole.len() as u32;
        let bytes = whole.get(offset as usize..).ok_or(Failure::Range { length })?;
        Ok(Response::Part { length, changes: self.stats.changes, bytes: start(bytes, self.frame) })
    }
}

/// At most the first `length` bytes.
fn start(bytes: &[u8], length: usize) -> &[u8] {
    bytes.get(..length).unwrap_or(bytes)
}
