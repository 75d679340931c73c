use crate::cache::{Cache, FlashCosts, Geometry, Read};

const COSTS: FlashCosts = FlashCosts { request: 100, first_word: 944, next_word: 317 };
/// From the request of a line of 8 words to its end.
const LINE: u64 = 100 + 944 + 7 * 317;

fn cache() -> Cache {
    // Two sets of two ways.
    Cache::new(Geometry { bytes: 128, ways: 2, line: 32 }, COSTS)
}

#[test]
fn the_words_of_a_line_arrive_in_order() {
    let mut cache = cache();
    assert_eq!(cache.read(8, 1000), Read { at: 1000 + 100 + 944 + 2 * 317, missed: true });
    assert_eq!(cache.read(12, 1000), Read { at: 1000 + 100 + 944 + 3 * 317, missed: false });
    assert_eq!(cache.read(0, 5000), Read { at: 5000, missed: false });
}

#[test]
fn the_next_line_waits_for_the_end_of_the_one_before() {
    let mut cache = cache();
    cache.read(0, 0);
    assert_eq!(cache.read(32, 2000), Read { at: LINE + 100 + 944, missed: true });
    assert_eq!(cache.idle_from(), 2 * LINE);
    // A line that is there does not wait for the flash.
    assert_eq!(cache.read(0, 3300), Read { at: 3300, missed: false });
}

#[test]
fn the_oldest_line_of_a_set_is_replaced_even_if_it_was_just_read() {
    let mut cache = cache();
    let mut misses = |line: u32| cache.read(64 * line, 1_000_000).missed;
    assert_eq!([misses(0), misses(1), misses(0), misses(2)], [true, true, false, true]);
    // The first in was the first out.
    assert_eq!([misses(1), misses(2), misses(0), misses(1)], [false, false, true, true]);
}
