//! The choice of kernels: by cycles, constants or arena, and within a budget.

use nano_core::image::{Budget, CodeSize, Cost, FlashTiming, Image, Optimize, estimate, write_with};
use nano_core::{Kernel, Model, ops};

use crate::builder::{Aligned, Builder, Window};

/// The convolution with no cost but these cycles, and more scratch memory and constants than it needs.
macro_rules! variant {
    ($id:literal, $name:literal, $cycles:literal, $flash:literal, $scratch:literal) => {
        Kernel {
            id: $id,
            name: $name,
            // The scratch memory is longer than what the convolution accepts: such an image is only read, not run.
            cost: |_| Some(Cost::instructions($cycles)),
            pack: |layer| {
                let mut packed = (ops::CONV2D.pack)(layer)?;
                packed.constants.push(vec![0; $flash]);
                packed.scratch_length += $scratch;
                Ok(packed)
            },
            ..ops::CONV2D
        }
    };
}

const KERNELS: &[Kernel] = &[
    variant!(1, "plain", 1_000_000, 0, 0),
    variant!(900, "large_scratch", 500_000, 0, 4000),
    variant!(901, "large_constants", 250_000, 8000, 0),
    variant!(902, "large", 100_000, 8000, 4000),
];

/// Three convolutions in a row. The first has the most memory in use.
fn net() -> Builder {
    let mut net = Builder::new(5);
    net.model.labels.clear();
    let mut x = net.input([8, 8, 8]);
    for channels in [8, 4, 4] {
        x = net.conv2d(x, channels, 1, Window::new([1, 1]));
    }
    net.output(x);
    net
}

fn chosen(optimize: Optimize, budget: Budget) -> (Vec<&'static str>, usize, usize) {
    let mut net = net();
    (net.model.optimize, net.model.budget) = (optimize, budget);
    let image = Aligned::new(&write_with(&net.model, KERNELS).unwrap());
    let image = Image::new(image.bytes()).unwrap();
    let names = image.nodes().map(|node| node.kernel(KERNELS).unwrap().name).collect();
    (names, image.length(), image.arena_length())
}

#[test]
fn the_goal_decides() {
    let free = Budget::default();
    assert_eq!(chosen(Optimize::Speed, free).0, ["large"; 3]);
    assert_eq!(chosen(Optimize::Flash, free).0, ["large_scratch"; 3]);
    assert_eq!(chosen(Optimize::Ram, free).0, ["large_constants"; 3]);
}

#[test]
fn a_budget_is_kept_and_used() {
    let (_, length, arena) = chosen(Optimize::Speed, Budget::default());
    let (names, smaller, _) = chosen(Optimize::Speed, Budget { flash: length - 1, arena: usize::MAX });
    assert!(smaller < length);
    assert_eq!(names.iter().filter(|&&name| name == "large").count(), 2, "{names:?}");
    assert_eq!(names.iter().filter(|&&name| name == "large_scratch").count(), 1, "{names:?}");
    let (names, _, less) = chosen(Optimize::Speed, Budget { flash: usize::MAX, arena: arena - 1 });
    assert!(less < arena);
    assert_eq!(names, ["large_constants", "large", "large"]);
    // One that cannot be kept gives the smallest image.
    let (names, ..) = chosen(Optimize::Speed, Budget { flash: 0, arena: 0 });
    assert_eq!(names, ["plain"; 3]);
}

#[test]
fn waiting_for_flash_counts() {
    let mut net = net();
    let timing = FlashTiming { cache: 16384, line: 32, ways: 8, cycles_to_first_word: 1000, cycles_per_line: 2000 };
    (net.model.flash_timing, net.model.optimize) = (timing, Optimize::Speed);
    let image = Aligned::new(&write_with(&net.model, KERNELS).unwrap());
    let image = Image::new(image.bytes()).unwrap();
    let names: Vec<_> = image.nodes().map(|node| node.kernel(KERNELS).unwrap().name).collect();
    assert_eq!(names, ["large_scratch"; 3], "the lines of 8,000 bytes take more cycles than they save");
    let layers = estimate(&net.model, KERNELS).unwrap();
    let of = |name: &str| layers[1].alternatives.iter().find(|one| one.kernel == name).unwrap().clone();
    assert_eq!(layers[1].kernel, "large_scratch");
    assert_eq!((of("plain").instructions, of("large").instructions), (1_000_000, 100_000));
    assert_eq!(of("large_scratch").cycles, 500_000, "all that the chosen kernels read stays in the cache");
    let lines = of("large").flash.div_ceil(32) as u64;
    // At least the first words of its constants, at most these lines whole, and the lines of its code.
    let waited = of("large").cycles - 100_000;
    assert!((1000 * lines..2000 * (lines + 300)).contains(&waited), "{waited}");
}

/// A byte of the arena must save 16 cycles.
#[test]
fn memory_that_saves_little_time_is_not_taken() {
    const SLOWER: Kernel = variant!(1, "plain", 100_000, 0, 0);
    const LITTLE: Kernel = variant!(900, "little", 95_000, 0, 4000);
    const MUCH: Kernel = variant!(900, "much", 50_000, 0, 4000);
    for (faster, taken) in [(LITTLE, "plain"), (MUCH, "much")] {
        let (mut net, kernels) = (net(), [SLOWER, faster]);
        net.model.optimize = Optimize::Speed;
        let image = Aligned::new(&write_with(&net.model, &kernels).unwrap());
        let image = Image::new(image.bytes()).unwrap();
        assert!(image.nodes().all(|node| node.kernel(&kernels).unwrap().name == taken), "{taken}");
    }
}

#[test]
fn all_goals_give_the_same_bytes() {
    for seed in 0..20 {
        let outputs = [Optimize::Speed, Optimize::Flash, Optimize::Ram].map(|optimize| {
            let mut net = Builder::new(seed);
            net.model.labels.clear();
            let x = net.input([7, 6, 16]);
            let first = net.conv2d(x, 16, 1, Window::new([3, 3]));
            let y = net.fully_connected(first, 16);
            net.output(y);
            net.model.optimize = optimize;
            let image = net.image();
            let mut arena = vec![0; Image::new(image.bytes()).unwrap().arena_length()];
            let mut model = Model::new(image.bytes(), &mut arena, ops::ALL).unwrap();
            model.input(0).iter_mut().zip(0..).for_each(|(place, q)| *place = (37 * q) as i8);
            model.run();
            model.output(0).to_vec()
        });
        assert!(outputs[0] == outputs[1] && outputs[0] == outputs[2], "seed {seed}");
    }
}

/// A KiB of code must save 0.05 % of the cycles; where the image is made small, 2 %.
#[test]
fn code_that_saves_little_time_is_not_linked() {
    const SLOWER: Kernel = variant!(1, "slower", 100_000_000, 0, 0);
    const LITTLE: Kernel = variant!(900, "little", 99_950_000, 0, 0);
    const MUCH: Kernel = variant!(901, "much", 99_800_000, 0, 0);
    let chosen = |optimize, kernels: &[Kernel], budget| {
        let mut net = net();
        (net.model.optimize, net.model.budget) = (optimize, budget);
        let both = kernels.iter().map(|kernel| kernel.name.into()).collect();
        let of_faster = vec![kernels[1].name.into()];
        net.model.code = vec![CodeSize { bytes: 5000, kernels: both }, CodeSize { bytes: 2000, kernels: of_faster }];
        let image = Aligned::new(&write_with(&net.model, kernels).unwrap());
        let names = Image::new(image.bytes()).unwrap().nodes().map(|node| node.kernel(kernels).unwrap().name);
        names.collect::<Vec<_>>()
    };
    let any = Budget::default();
    // 2,000 bytes must save 0.1 % of 300 million cycles: of three layers they save 150,000 or 600,000.
    assert_eq!(chosen(Optimize::Speed, &[SLOWER, LITTLE], any), ["slower"; 3]);
    assert_eq!(chosen(Optimize::Speed, &[SLOWER, MUCH], any), ["much"; 3]);
    assert_eq!(chosen(Optimize::Ram, &[SLOWER, LITTLE], any), ["little"; 3]);
    assert_eq!(chosen(Optimize::Flash, &[SLOWER, MUCH], any), ["slower"; 3]);
    const FAST: Kernel = variant!(902, "fast", 90_000_000, 0, 0);
    assert_eq!(chosen(Optimize::Flash, &[SLOWER, FAST], any), ["fast"; 3]);
    // A smaller kernel that breaks the budget is not taken.
    const LARGE: Kernel = variant!(1, "large", 100_000_000, 0, 4000);
    let of_little = chosen(Optimize::Speed, &[LARGE, LITTLE], any);
    assert_eq!(of_little, ["large"; 3]);
    let tight = Budget { flash: usize::MAX, arena: 4000 };
    assert_eq!(chosen(Optimize::Speed, &[LARGE, LITTLE], tight), ["little"; 3]);
}
