//! A model that reads black digits learns white ones, in integers: `cargo run --example learn`.

mod digits;

use digits::model;
use nano_core::train::Target;
use nano_core::{CheckedImage, Classifier, Error};

type Digits<'a> = Classifier<'a, model::Head<'a>>;

fn main() -> Result<(), Error> {
    let (before, after) = learn()?;
    println!("of 100 unseen digits {before} are right before learning, {after} after learning 100 others");
    Ok(())
}

/// Learns the first half of the digits; returns how many of the others are right before and after.
fn learn() -> Result<(usize, usize), Error> {
    // On a chip: a static.
    let mut memory = digits::Ram::new();
    let mut classifier = Digits::new(CheckedImage::new(model::IMAGE, model::KERNELS)?, &mut memory)?;
    let samples = digits::samples();
    let (learnt, unseen) = samples.split_at(100);
    let before = right(&mut classifier, unseen)?;
    for (pixels, label) in learnt {
        classifier.set_input(0, pixels)?;
        classifier.run();
        classifier.learn(Target::Class(*label))?;
    }
    classifier.train(20)?;
    Ok((before, right(&mut classifier, unseen)?))
}

fn right(classifier: &mut Digits<'_>, samples: &[([f32; model::INPUT_LENGTH], u16)]) -> Result<usize, Error> {
    let mut right = 0;
    for (pixels, label) in samples {
        classifier.set_input(0, pixels)?;
        right += usize::from(classifier.classify().class == u32::from(*label));
    }
    Ok(right)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_learns_what_python_learns() {
        super::main().unwrap();
        // The same numbers in Python: tools/example_model.py.
        assert_eq!(super::learn(), Ok((0, 82)));
    }
}
