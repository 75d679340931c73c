//! Classifies a handwritten digit: `cargo run --example classify [number]`, of the 200 that come with it.

mod digits;

use digits::model;
use nano_core::{CheckedImage, Classifier, Error, Prediction};

fn main() -> Result<(), Error> {
    let samples = digits::samples();
    let wanted = std::env::args().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0);
    let (pixels, _) = &samples[wanted % samples.len()];
    for row in pixels.chunks(8) {
        println!("{}", row.iter().map(|&pixel| if pixel < 8.0 { "##" } else { "  " }).collect::<String>());
    }
    // The network was trained on black digits: the example `learn` teaches it white ones.
    let (Prediction { class, confidence, .. }, name) = classify(&pixels.map(|pixel| 16.0 - pixel))?;
    let probability = confidence.map_or(1.0, |confidence| f32::from(confidence) / 32768.0);
    println!("class {class}, called {name}, with probability {probability:.2}");
    Ok(())
}

/// The class of a digit, and its name in the image.
fn classify(pixels: &[f32; model::INPUT_LENGTH]) -> Result<(Prediction, &'static str), Error> {
    // On a chip: a static.
    let mut memory = digits::Ram::new();
    let image = CheckedImage::new(model::IMAGE, model::KERNELS)?;
    let mut classifier = Classifier::<model::Head<'_>>::new(image, &mut memory)?;
    classifier.set_input(0, pixels)?;
    let made = classifier.classify();
    Ok((made, model::LABELS[made.class as usize]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_digits_are_read_and_named() {
        main().unwrap();
        let right = |(pixels, label): &([f32; 64], u16)| {
            let (made, name) = classify(&pixels.map(|pixel| 16.0 - pixel)).unwrap();
            assert_eq!(name, made.class.to_string());
            made.class == u32::from(*label)
        };
        // The same number in Python: tools/example_model.py.
        assert_eq!(digits::samples().iter().filter(|sample| right(sample)).count(), 190);
    }
}
