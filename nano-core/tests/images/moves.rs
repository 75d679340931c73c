//! Data movement compared with its definition, and tables with offsets outside of the input.

use nano_core::image::{Image, WriteError, write};
use nano_core::{Error, Model, ops};

use crate::builder::{Aligned, Builder, Window, ZERO_POINT};

/// The elements that the tables name, by the operator's definition.
fn expected(input: &[i8], [rows, columns, channels]: &[Vec<i32>; 3]) -> Vec<i8> {
    let element = |i: i32, j: i32, k: i32| match [i, j, k].contains(&-1) {
        true => ZERO_POINT as i8,
        false => input[(i + j + k) as usize],
    };
    let pixels = rows.iter().flat_map(|&i| columns.iter().map(move |&j| (i, j)));
    pixels.flat_map(|(i, j)| channels.iter().map(move |&k| element(i, j, k))).collect()
}

fn net(input: [u32; 3], output: [u32; 3], tables: [Vec<i32>; 3]) -> Builder {
    let mut net = Builder::new(0);
    let x = net.input(input);
    let y = net.gather(x, output, tables);
    net.output(y);
    net.model.labels.clear();
    net
}

/// A table of `length` entries below `range` that has regular parts, as tables of real maps have.
fn table(random: &mut fastrand::Rng, length: usize, range: i32) -> Vec<i32> {
    let mut table = Vec::new();
    while table.len() < length {
        let (start, inner) = (random.i32(0..range), random.i32(1..6));
        let (outer_step, step) = (random.i32(-3..4), random.i32(-2..3));
        let zeros = random.u8(..8) == 0;
        let entries = (0..random.i32(1..4)).flat_map(|a| (0..inner).map(move |b| a * outer_step + b * step));
        table.extend(entries.map(|entry| if zeros { -1 } else { (start + entry).rem_euclid(range) }));
    }
    table.truncate(length);
    table
}

#[test]
fn moved_elements_are_those_of_the_definition() {
    for seed in 0..3000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let side = |random: &mut fastrand::Rng| random.u32(1..7);
        let input: [u32; 3] = core::array::from_fn(|_| side(&mut random));
        let output: [u32; 3] = core::array::from_fn(|_| side(&mut random));
        // The numbers of entries are the output's sides, or other numbers with their product.
        let lengths = match random.u8(..3) {
            0 => output,
            1 => [output[0] * output[1], 1, output[2]],
            _ => [1, 1, output.iter().product()],
        };
        let elements = input.iter().product::<u32>() as i32;
        let rows = random.i32(1..=elements);
        let columns = random.i32(1..=elements - rows + 1);
        let ranges = if random.bool() { [1, 1, elements] } else { [rows, columns, elements - rows - columns + 2] };
        let tables = core::array::from_fn(|index| table(&mut random, lengths[index] as usize, ranges[index]));
        let image = net(input, output, tables.clone()).image();
        let mut arena = vec![0; Image::new(image.bytes()).unwrap().arena_length()];
        let mut model =
            Model::new(image.bytes(), &mut arena, ops::ALL).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        model.input(0).fill_with(|| random.i8(..));
        let given = model.input(0).to_vec();
        model.run();
        assert_eq!(model.output(0), expected(&given, &tables), "seed {seed}: {input:?} {output:?} {tables:?}");
    }
}

#[test]
fn nothing_is_read_from_outside_of_the_input() {
    let refusal = |tables| {
        let image = Aligned::new(&write(&net([1, 2, 3], [1, 2, 3], tables).model).unwrap());
        let mut arena = [0; 64];
        match Model::new(image.bytes(), &mut arena, ops::ALL).err() {
            Some(Error::Layer { operator: "move", rule, value }) => (rule, value),
            other => panic!("{other:?}"),
        }
    };
    let beyond = "the highest element that is read is not in the input";
    assert_eq!(refusal([vec![0], vec![0, 3], vec![0, 1, 3]]), (beyond, 6));
    assert_eq!(refusal([vec![1 << 27], vec![0, 3], vec![0, 1, 2]]), (beyond, (1 << 27) + 5));
    // Nothing is read for elements that are only the zero point.
    let unread = net([1, 2, 3], [1, 2, 3], [vec![-1], vec![0, 9], vec![0, 1, 2]]).image();
    assert!(Model::new(unread.bytes(), &mut [0; 64], ops::ALL).is_ok());
}

#[test]
fn entries_are_element_numbers() {
    for entry in [-2, i32::MIN, 1 << 28, i32::MAX] {
        let refused = write(&net([1, 2, 3], [1, 2, 3], [vec![0], vec![0, entry], vec![0, 1, 2]]).model);
        let Err(WriteError::Refused { operator, value, .. }) = refused else { panic!("{entry}: {refused:?}") };
        assert_eq!((operator.as_str(), value), ("move", f64::from(entry)));
    }
}

/// Rows 1 and 2 of a convolution's output, and the channels 2 to 4 of these.
fn views(read_again: bool) -> Builder {
    let mut net = Builder::new(9);
    let input = net.input([4, 3, 2]);
    let six = net.conv2d(input, 6, 1, Window::new([1, 1]));
    let rows = net.part(six, [2, 3, 6], [vec![18, 36], vec![0, 6, 12], (0..6).collect()], [18, 6]);
    let part = net.part(rows, [2, 3, 3], [vec![0, 18], vec![0, 6, 12], vec![2, 3, 4]], [2, 6]);
    let last = net.conv2d(part, 5, 1, Window::new([2, 2]));
    net.output(last);
    if read_again {
        let pooled = net.max_pool2d(six, Window::new([2, 2]));
        net.output(pooled);
    }
    net.model.labels.clear();
    net
}

#[test]
fn parts_of_a_value_are_views_whatever_lives_on() {
    for read_again in [false, true] {
        let net = views(read_again);
        let mut copied = views(read_again);
        for layer in copied.model.layers.iter_mut().filter(|layer| layer.operator == "move") {
            layer.attributes.extend([("first".into(), 0), ("pitch".into(), 0)]);
        }
        let [outputs, expected] = [&net, &copied].map(|net| {
            let image = net.image();
            let read = Image::new(image.bytes()).unwrap();
            let kernels: Vec<&str> = read.nodes().map(|node| node.kernel(ops::ALL).unwrap().name).collect();
            let mut arena = vec![0; read.arena_length()];
            let mut model = Model::new(image.bytes(), &mut arena, ops::ALL).unwrap();
            model.input(0).iter_mut().zip(-60i8..).for_each(|(place, q)| *place = q.wrapping_mul(5));
            model.run();
            let outputs: Vec<Vec<i8>> = (0..read.output_count()).map(|index| model.output(index).to_vec()).collect();
            (kernels.iter().filter(|&&name| name == "move_view").count(), outputs)
        });
        assert!(outputs.0 > 0 && expected.0 == 0, "{} views, {} where none is allowed", outputs.0, expected.0);
        assert_eq!(outputs.1, expected.1);
    }
}

#[test]
fn a_part_of_the_input_is_that_of_the_tables_and_lies_inside() {
    let part = |tables, place| {
        let mut net = Builder::new(0);
        let x = net.input([2, 3, 4]);
        let y = net.part(x, [2, 3, 2], tables, place);
        net.output(y);
        net.model.labels.clear();
        write(&net.model).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let tables = || [vec![0, 12], vec![0, 4, 8], vec![1, 2]];
    assert_eq!(part(tables(), [1, 4]), "");
    assert_eq!(part(tables(), [0, 0]), "");
    for (place, problem) in [
        ([2, 4], "the tables are not those of the part"),
        ([1, 3], "the tables are not those of the part"),
        ([3, 4], "the last element of the part is not in the input"),
        ([1, 1], "the pitch of the part is below the output's channels"),
        ([1, 0], "without a pitch there is no part"),
    ] {
        let found = part(tables(), place);
        assert!(found.contains(problem), "{place:?}: {found}");
    }
}
