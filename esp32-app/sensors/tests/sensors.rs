//! Sensors on a bus that expects every transaction, and answers it as the chip's data sheet says.

use embedded_hal_mock::eh1::delay::NoopDelay;
use embedded_hal_mock::eh1::i2c::{Mock, Transaction};
use torch_nano_device::Sampled;
use torch_nano_sensors::{Button, Imu, Lsm6dso, Mpu6050, Sensor, Voltage};

use embedded_hal::i2c::{ErrorKind, NoAcknowledgeSource};

const ABSENT: ErrorKind = ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address);

/// Reads a register, and writes it with other bits.
fn update(address: u8, register: u8, before: u8, after: u8) -> [Transaction; 2] {
    [Transaction::write_read(address, vec![register], vec![before]), Transaction::write(address, vec![register, after])]
}

fn sample(sensor: &mut impl Sensor) -> (Sampled, [f32; 6]) {
    let mut sample = [f32::NAN; 6];
    (sensor.sample(&mut sample), sample)
}

fn close(found: [f32; 6], expected: [f32; 6]) {
    // The driver and the sensor each round to f32 a few times.
    let far = found.into_iter().zip(expected).any(|(found, expected)| (found - expected).abs() > 1e-5 * expected.abs());
    assert!(!far, "{found:?} instead of {expected:?}");
}

/// MPU-6050 register map: PWR_MGMT_1 0x6b (reset 7, sleep 6, clock 0..3), CONFIG 0x1a, GYRO_CONFIG 0x1b and ACCEL_CONFIG 0x1c (scale 3..5).
fn mpu6050_set_up(before: u8) -> Vec<Transaction> {
    [
        update(0x68, 0x6b, before, before | 0x80),
        update(0x68, 0x6b, 0x40, 0x00),
        update(0x68, 0x6b, 0x00, 0x01),
        update(0x68, 0x1a, 0x00, 0x03),
        update(0x68, 0x1c, 0x00, 0x10),
        update(0x68, 0x1b, 0x00, 0x10),
    ]
    .concat()
}

/// Acceleration, temperature and rotation, big-endian from 0x3b on.
fn mpu6050_read(numbers: [i16; 7]) -> Transaction {
    Transaction::write_read(0x68, vec![0x3b], numbers.into_iter().flat_map(i16::to_be_bytes).collect())
}

#[test]
fn an_mpu6050_measures_in_si_units_in_one_transaction() {
    let mut expected = update(0x68, 0x6b, 0x40, 0x00).to_vec();
    expected.extend(mpu6050_set_up(0x00));
    expected.push(mpu6050_read([4096, -8192, 2048, 123, 328, -3280, 0]));
    expected.push(mpu6050_read([1, 2, 3, 4, 5, 6, 7]));
    let mut bus = Mock::new(&expected);
    let mut imu = Imu::new(Mpu6050::new(bus.clone(), 0x68, NoopDelay));

    let (sampled, numbers) = sample(&mut imu);
    assert_eq!(sampled, Sampled::Taken);
    // 4096 steps are 1 g, 32.8 are 1 degree per second.
    close(numbers, [9.80665, -19.6133, 4.903325, 0.174_532_93, -1.745_329_3, 0.0]);
    assert_eq!(sample(&mut imu).0, Sampled::Taken);
    bus.done();
}

#[test]
fn an_mpu6050_that_lost_power_is_set_up_again_and_leaves_a_gap() {
    let mut expected = update(0x68, 0x6b, 0x40, 0x00).to_vec();
    expected.extend(mpu6050_set_up(0x00));
    expected.push(mpu6050_read([1, 1, 1, 1, 1, 1, 1]));
    // Asleep again, it answers zeros, but for the temperature.
    expected.push(mpu6050_read([0, 0, 0, 77, 0, 0, 0]));
    expected.extend(mpu6050_set_up(0x40));
    expected.push(mpu6050_read([2, 2, 2, 2, 2, 2, 2]));
    expected.push(mpu6050_read([3, 3, 3, 3, 3, 3, 3]));
    let mut bus = Mock::new(&expected);
    let mut imu = Imu::new(Mpu6050::new(bus.clone(), 0x68, NoopDelay));
    let sampled: Vec<Sampled> = (0..4).map(|_| sample(&mut imu).0).collect();
    assert_eq!(sampled, [Sampled::Taken, Sampled::Failed, Sampled::AfterGap, Sampled::Taken]);
    bus.done();
}

#[test]
fn a_sensor_that_is_plugged_in_later_is_found() {
    let mut expected = vec![Transaction::write_read(0x68, vec![0x6b], vec![0]).with_error(ABSENT)];
    expected.extend(update(0x68, 0x6b, 0x40, 0x00));
    expected.extend(mpu6050_set_up(0x00));
    expected.push(mpu6050_read([1, 2, 3, 4, 5, 6, 7]));
    let mut bus = Mock::new(&expected);
    let mut imu = Imu::new(Mpu6050::new(bus.clone(), 0x68, NoopDelay));
    assert_eq!(sample(&mut imu).0, Sampled::Failed);
    assert_eq!(sample(&mut imu).0, Sampled::AfterGap);
    bus.done();
}

/// LSM6DSO: WHO_AM_I 0x0f, CTRL3_C 0x12 (BDU 6, IF_INC 2), CTRL1_XL 0x10 (rate 4..7, scale 2..3), CTRL2_G 0x11 (rate 4..7, scale 1..3).
fn lsm6dso_set_up(who: u8) -> Vec<Transaction> {
    let mut expected =
        vec![Transaction::write(0x6a, vec![0x12, 0x44]), Transaction::write_read(0x6a, vec![0x0f], vec![who])];
    if who == 0x6c {
        expected.extend(update(0x6a, 0x10, 0x00, 0x0c));
        expected.extend(update(0x6a, 0x10, 0x0c, 0x4c));
        expected.extend(update(0x6a, 0x11, 0x00, 0x08));
        expected.extend(update(0x6a, 0x11, 0x08, 0x48));
    }
    expected
}

/// Temperature, rotation and acceleration, little-endian from 0x20 on.
fn lsm6dso_read(numbers: [i16; 7]) -> Transaction {
    Transaction::write_read(0x6a, vec![0x20], numbers.into_iter().flat_map(i16::to_le_bytes).collect())
}

#[test]
fn an_lsm6dso_measures_in_si_units_in_one_transaction() {
    let mut expected = lsm6dso_set_up(0x6c);
    expected.push(lsm6dso_read([0, 1000, -2000, 0, 1000, -2000, 0]));
    let mut bus = Mock::new(&expected);
    let mut imu = Imu::new(Lsm6dso::new(bus.clone(), 0x6a, NoopDelay));
    let (sampled, numbers) = sample(&mut imu);
    assert_eq!(sampled, Sampled::Taken);
    // 0.244 mg and 35 millidegrees per second a step.
    close(numbers, [2.392_822_6, -4.785_645, 0.0, 0.610_865_2, -1.221_730_5, 0.0]);
    bus.done();
}

#[test]
fn another_chip_at_the_address_is_no_sensor() {
    let mut bus = Mock::new(&[lsm6dso_set_up(0x6b), lsm6dso_set_up(0x6b)].concat());
    let mut imu = Imu::new(Lsm6dso::new(bus.clone(), 0x6a, NoopDelay));
    let (sampled, numbers) = sample(&mut imu);
    assert_eq!(sampled, Sampled::Failed);
    assert!(numbers.iter().all(|number| number.is_nan()), "nothing was written: {numbers:?}");
    assert_eq!(sample(&mut imu).0, Sampled::Failed);
    bus.done();
}

#[test]
fn a_voltage_is_the_number_times_its_step() {
    let mut numbers = [Some(0), Some(4095), None].into_iter();
    let mut voltage = Voltage::new(|| numbers.next().flatten(), 3.3 / 4095.0);
    let mut sample = [f32::NAN];
    assert_eq!((voltage.sample(&mut sample), sample), (Sampled::Taken, [0.0]));
    assert_eq!((voltage.sample(&mut sample), sample), (Sampled::Taken, [3.3]));
    assert_eq!(voltage.sample(&mut sample), Sampled::Failed);
}

#[test]
fn a_button_that_bounces_is_pressed_once() {
    let mut button = Button::new(20, 600);
    // Down from 100 to 300, and 10 ms of bouncing at both ends.
    let down = |time: u64| (110..300).contains(&time) || ((100..310).contains(&time) && time.is_multiple_of(2));
    let chosen: Vec<u16> = (0..2000).filter_map(|time| button.update(time, down(time))).collect();
    assert_eq!(chosen, [0]);
}

#[test]
fn a_button_chooses_nothing_while_it_is_held_or_untouched() {
    let mut button = Button::new(20, 600);
    assert!((0..5000).all(|time| button.update(time, time > 1000).is_none()));
    let mut button = Button::new(20, 600);
    assert!((0..5000).all(|time| button.update(time, time % 100 < 15).is_none()), "shorter than it bounces");
}
