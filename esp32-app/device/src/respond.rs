//! What each request of a PC does with the device.

use embedded_storage::nor_flash::NorFlash;
use nano_core::image::Value;
use nano_core::train::Head;
use zerocopy::IntoBytes;

use crate::device::{Device, Features, Prediction};
use crate::failure::Failure;
use crate::graph;
use crate::learner::Learned;
use crate::message::{Block, Request, Response};
use crate::training::Progress;

impl<'a, C: FnMut() -> u64, F: NorFlash, H: Head<'a>> Device<'a, C, F, H> {
    /// Answers a request. A refused one changes nothing.
    pub(crate) fn respond(&mut self, request: Request<'_>) -> Result<Response<'_>, Failure> {
        match request {
            Request::Begin => {
                // The device's own training goes on.
                if self.training() == self.asked {
                    self.end_training();
                }
                // The states of a device that senses are of what it sees: a PC that connects does not interrupt that.
                match &mut self.latest {
                    Some(latest) => latest.sends_samples = false,
                    None => self.reset_states(),
                }
                self.ran = false;
            }
            Request::Info => return Ok(self.info()),
            Request::Describe { value } => return graph::describe(self.model.image(), value),
            Request::Predict { input } => {
                self.complete_input(input)?;
                let frame = self.frame;
                let Prediction { class, confidence, margin, known, ticks, logit_scale, logits, output } =
                    self.infer()?;
                let logits = start(logits.as_bytes(), frame);
                let output = start(output.as_bytes(), frame - logits.len());
                return Ok(Response::Prediction {
                    class,
                    confidence,
                    margin,
                    known,
                    ticks,
                    logit_scale,
                    logits,
                    output,
                });
            }
            Request::Features { input } => {
                self.complete_input(input)?;
                let frame = self.frame;
                let Features { ticks, output } = self.extract();
                return Ok(Response::Features { ticks, output: start(output.as_bytes(), frame) });
            }
            Request::Profile { input } => return self.profile(input),
            Request::Input { offset, bytes } => return self.take_input(offset, bytes),
            Request::ResetStates => self.reset_states(),
            Request::Learn { label, input } => {
                let target = self.target(label)?;
                self.complete_input(input)?;
                let learned = self.learn_input(target)?;
                return Ok(Response::Learned { samples: learned.samples, ticks: learned.ticks });
            }
            Request::Label { label } => {
                let Learned { samples, ticks } = self.label(label)?;
                return Ok(Response::Learned { samples, ticks });
            }
            Request::Train { first_epoch, epochs } => {
                self.begin_training(first_epoch, epochs)?;
                self.asked = self.training();
                return Ok(trained(self.train_slice()?));
            }
            Request::Continue => return Ok(trained(self.train_slice()?)),
            Request::Stop => return Ok(trained(self.stop_training()?)),
            Request::Commit => {
                let ticks = self.commit()?;
                return Ok(Response::Committed { ticks });
            }
            Request::Undo => self.undo()?,
            Request::AddClass { name } => {
                let class = self.add_class(name)?;
                return Ok(Response::ClassAdded { class });
            }
            Request::Forget { class } => self.forget(class)?,
            Request::ClassName { class } => return Ok(Response::ClassName { name: self.class_name(class)? }),
            Request::Reset => self.reset()?,
            Request::Save { replace } => {
                let count = self.save(replace)?;
                return Ok(Response::Saved { count });
            }
            Request::Load => return Ok(Response::Loaded(self.load()?)),
            Request::Read { block, offset } => return self.read(block, offset),
            Request::WriteHead { offset, bytes } => return self.write_head(offset, bytes),
            Request::ReplaceHead { checksum } => self.replace_head(checksum)?,
            Request::Configure { settings } => self.configure(settings),
            Request::Stats => return Ok(Response::Stats(self.stats())),
            Request::BeginUpdate { length, id } => {
                return Ok(Response::Received { length: self.slots()?.begin(length, id)? });
            }
            Request::WriteUpdate { offset, bytes } => {
                return Ok(Response::Received { length: self.slots()?.write(offset, bytes)? });
            }
            Request::FinishUpdate => {
                let (count, same_head) = self.finish_update()?;
                return Ok(Response::Updated { count, same_head });
            }
            Request::ConfirmUpdate => self.slots()?.confirm()?,
            Request::Restart => self.restart()?,
            Request::SendSamples | Request::StopSamples => {
                let latest = self.latest.as_mut().ok_or(Failure::NoRun)?;
                latest.sends_samples = matches!(request, Request::SendSamples);
            }
        }
        Ok(Response::Done)
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
            update: self.update_state(),
        }
    }

    fn profile(&mut self, input: &[u8]) -> Result<Response<'_>, Failure> {
        self.complete_input(input)?;
        self.stats.runs = self.stats.runs.wrapping_add(1);
        let Device { model, layers, learner, counter, .. } = self;
        let mut counts = layers.iter_mut();
        let mut last = counter();
        model.run_observed(|_, _, _| {
            let now = counter();
            if let Some(ticks) = counts.next() {
                *ticks = (now - last) as u32;
            }
            last = counter();
        });
        if let (Some(learner), Some(ticks)) = (learner, counts.next()) {
            learner.logits(model.output(0))?;
            *ticks = (counter() - last) as u32;
        }
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
                learner.logits(self.model.output(0))?.values.as_bytes()
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

fn trained(progress: Progress) -> Response<'static> {
    let Progress { steps, left, ticks, taken_back } = progress;
    Response::Trained { steps, left, ticks, taken_back }
}

/// At most the first `length` bytes.
fn start(bytes: &[u8], length: usize) -> &[u8] {
    bytes.get(..length).unwrap_or(bytes)
}
