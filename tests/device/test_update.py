"""Updates of the model on the emulated board: what goes on, what is refused, and power cuts."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_nano as tn
from cli.command_line import run
from images import seal
from torch import nn
from torch_nano import _native
from torch_nano.errors import BoardStopped

X = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(64) % 3
SEED, CUTS = 4, 8
#: Moments are up to so many times as late as an update takes: some come after it.
LATEST = 2.5
#: Neurons of the large models: images of 27 kB, in seven parts.
WIDTH = 160


def make(seed: int = 0, name: str = "moves", width: int = 16, **options: object) -> tn.NanoModule:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(6, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3)
    )
    return tn.to_nano(model, X, calibrate=X, head="4", name=name, check=False, **options)  # type: ignore[arg-type]


def same_prediction(device: tn.Device, nano: tn.NanoModule) -> bool:
    nano.head.load(device.head_state())
    return [device.predict(x).label for x in X[:5]] == nano(X[:5]).argmax(1).tolist()


def test_a_head_goes_on_with_a_model_that_has_the_same_one() -> None:
    old, new = make(), make(name="renamed", weights_in_ram=1 << 16)
    assert old.id != new.id
    with tn.Device(tn.device.QemuBoard(old.image), nano=old) as device:
        device.fit(X, Y, epochs=2)
        state = device.head_state()
        assert state != old.head.state()
        result = device.update(new)
        assert (result.number, result.sent, result.head_kept) == (1, len(new.image), True)
        info = device.info
        assert (info.model_id, info.name, info.update, info.on_trial) == (new.id, "renamed", 1, False)
        assert device.head_state() == state
        assert device.head() is new.head and same_prediction(device, new)
        # Once more: there is nothing to do.
        assert device.update(new).sent == 0


def test_another_head_is_set_aside_until_a_save_replaces_it() -> None:
    old, new = make(), make(seed=1)
    with tn.Device(tn.device.QemuBoard(old.image), nano=old) as device:
        device.fit(X, Y, epochs=2)
        assert not device.update(new).head_kept
        assert device.head_state() == new.head.state() and same_prediction(device, new)
        assert not device.info.restored
        for refused in (device.load, device.save):
            with pytest.raises(tn.errors.DeviceError, match=f"belongs to another model, {old.id:08x}"):
                refused()
        # Back, where the head was saved.
        state = device.update(old)
        assert state.head_kept
        device.update(new)
        assert device.save(replace=True) == 2


def test_an_update_that_is_not_confirmed_is_left_with_its_head(tmp_path: Path) -> None:
    old, new = make(), make(seed=1)
    flash = tmp_path / "flash"
    with tn.Device(tn.device.QemuBoard(old.image, flash=flash), nano=old) as device:
        device.fit(X, Y, epochs=2)
        device.save()
        state = device.head_state()
        _send(device, new)
    with tn.Device(tn.device.QemuBoard(old.image, flash=flash), nano=new) as device:
        assert device.info.on_trial and device.info.update == 1
        with pytest.raises(tn.errors.UpdateError, match="an update on trial: confirm it first") as raised:
            device.save(replace=True)
        assert raised.value.failure == "Unconfirmed"
        with pytest.raises(tn.errors.UpdateError, match="on trial"):
            device.update(make(seed=2))
    with tn.Device(tn.device.QemuBoard(old.image, flash=flash), nano=old) as device:
        assert (device.info.update, device.info.restored, device.head_state()) == (0, True, state)
        _send(device, new)
    # The same call confirms what was interrupted before.
    with tn.Device(tn.device.QemuBoard(old.image, flash=flash), nano=new) as device:
        assert device.update(new).sent == 0 and not device.info.on_trial
    with tn.Device(tn.device.QemuBoard(old.image, flash=flash), nano=new) as device:
        assert not device.info.on_trial


def _send(device: tn.Device, nano: tn.NanoModule) -> None:
    """Sends an update as far as its check."""
    device._ask("begin_update", "received", length=len(nano.image), id=nano.id)
    for offset in range(0, len(nano.image), 4096):
        device._ask("write_update", "received", offset=offset, bytes=nano.image[offset : offset + 4096])
    device._ask("finish_update", "updated")


def _is_refused(old: tn.NanoModule, act: Callable[[tn.Device], object], failure: str, text: str) -> None:
    """The act is refused, and the board runs the old model, also after a restart."""
    with tn.Device(tn.device.QemuBoard(old.image), nano=old) as device:
        with pytest.raises(tn.errors.UpdateError, match=text) as raised:
            act(device)
        assert raised.value.failure == failure
        assert same_prediction(device, old)
        device._ask("restart", "done")
        device._link.wait_for_start()
        device._link.begin()
        device._refresh()
        assert (device.info.model_id, device.info.update) == (old.id, 0)


def test_what_cannot_run_is_refused_and_the_old_model_goes_on() -> None:
    old, new = make(), make(seed=1)
    damaged = bytearray(new.image)
    damaged[500] ^= 1

    def send_damaged(device: tn.Device) -> None:
        device._ask("begin_update", "received", length=len(damaged), id=new.id)
        device._ask("write_update", "received", offset=0, bytes=bytes(damaged))
        device._ask("finish_update", "updated")

    def begin_too_large(device: tn.Device) -> None:
        room = device.info.update_room
        device._ask("begin_update", "received", length=room + 1, id=1)

    _is_refused(old, send_damaged, "Checksum", "damaged on the way.*Send it again")

    def send_changed(offset: int, word: int) -> Callable[[tn.Device], None]:
        """Sends an image that this PC would refuse, with a valid checksum."""
        changed = bytearray(new.image)
        struct.pack_into("<H", changed, offset, word)
        id = seal(changed)

        def send(device: tn.Device) -> None:
            device._ask("begin_update", "received", length=len(changed), id=id)
            device._ask("write_update", "received", offset=0, bytes=bytes(changed))
            device._ask("finish_update", "updated")

        return send

    (nodes,) = struct.unpack_from("<I", new.image, 28)
    (version,) = struct.unpack_from("<H", new.image, 4)
    _is_refused(
        old,
        send_changed(nodes, 999),
        "Kernel",
        "layer 0, counted from 0, needs kernel 999, which the program",
    )
    text = f"has format version {version - 1}, the program on the device reads {version}"
    _is_refused(old, send_changed(4, version - 1), "Version", text)
    _is_refused(old, begin_too_large, "TooLarge", r"has 16248833 bytes, and the device has 16248832 for one")
    with tn.Device(tn.device.QemuBoard(old.image), nano=old) as device:
        with pytest.raises(tn.errors.FileFormatError, match="damaged"):
            device.update(bytes(damaged))
        older = bytearray(new.image)
        older[4] -= 1
        with pytest.raises(tn.errors.FileFormatError, match="export the model again"):
            device.update(bytes(older))
        assert "begin_update" not in [entry.request for entry in device.log]
    with tn.Device("sim", nano=old) as device:
        assert device.info.update_room == 0
        with pytest.raises(tn.errors.UpdateError, match="no flash for updates") as raised:
            device.update(new)
        assert raised.value.failure == "NoSlots" and same_prediction(device, old)


def test_the_text_of_a_refusal_names_the_kernel_that_the_program_lacks() -> None:
    # The emulated board has all kernels, so its refusal of an unknown one is changed on its way.
    old, new = make(), make(seed=1)
    (nodes,) = struct.unpack_from("<I", new.image, 28)
    (known,) = struct.unpack_from("<H", new.image, nodes)
    changed = bytearray(new.image)
    struct.pack_into("<H", changed, nodes, 999)
    id = seal(changed)
    received = bytearray()
    board = tn.device.QemuBoard(old.image)

    class Heard:
        """The board's stream, whose bytes are kept."""

        def read(self, size: int) -> bytes:
            received.extend(read := board.read(size))
            return read

        def write(self, data: bytes) -> None:
            board.write(data)

        def close(self) -> None:
            board.close()

    with tn.Device(Heard(), nano=old) as device:
        device._ask("begin_update", "received", length=len(changed), id=id)
        device._ask("write_update", "received", offset=0, bytes=bytes(changed))
        with pytest.raises(tn.errors.UpdateError, match="needs kernel 999"):
            device._ask("finish_update", "updated")
    message = _decoded(received.split(b"\0")[-2])
    assert message.count(_varint(999)) == 1
    message = message.replace(_varint(999), _varint(known))
    answer = _native.decode_response(_encoded(message + struct.pack("<I", zlib.crc32(message))))
    kernel = _native.Model(new.image).layers[0]["kernel"]
    assert kernel.startswith("fully_connected")
    assert f'layer 0, counted from 0, needs the kernel "{kernel}", which the program on' in answer["reason"]
    assert answer["reason"].endswith("a firmware has the kernels of its own model. Flash the model")


def _varint(number: int) -> bytes:
    """A number of up to 14 bits as postcard has it."""
    return bytes([number]) if number < 128 else bytes([number & 127 | 128, number >> 7])


def _decoded(frame: bytes) -> bytes:
    """The message of a frame (COBS) of less than 254 bytes, without its checksum."""
    message, place = bytearray(), 0
    while place < len(frame):
        message += frame[place + 1 : place + frame[place]] + b"\0"
        place += frame[place]
    return bytes(message[:-5])


def _encoded(message: bytes) -> bytes:
    """A message of less than 254 bytes as a frame."""
    return b"".join(bytes([len(part) + 1]) + part for part in message.split(b"\0"))


def test_the_flash_lines_of_an_updated_model_are_counted() -> None:
    old, new = make(), make(seed=1, width=WIDTH)
    x = np.zeros(6, np.int8)

    def data_lines(board: tn.device.QemuBoard, device: tn.Device) -> int:
        board.restart_counts()
        device.profile(x)
        counts = board.counts()
        return sum(
            end.data_lines - start.data_lines for start, end in zip(counts[::2], counts[1::2], strict=False)
        )

    with tn.device.QemuBoard(new.image, chip="esp32c3") as board:
        lines = data_lines(board, tn.Device(board, nano=new))
    with tn.device.QemuBoard(old.image, chip="esp32c3") as board:
        device = tn.Device(board, nano=old)
        before = data_lines(board, device)
        device.update(new)
        after = data_lines(board, device)
    # 27 kB of weights are read from the slot, as they were from the place of the program's own image.
    assert before < 60 and lines > 25_000 // 32
    assert after == pytest.approx(lines, rel=0.02), "an image lies elsewhere in its first and last lines"


def test_a_record_ends_where_the_model_does(tmp_path: Path) -> None:
    old, new = make(), make(seed=1)
    with tn.Device(tn.device.QemuBoard(old.image), nano=old) as device:
        with tn.device.record(device, tmp_path / "record"):
            device.fit(X[:6], Y[:6], epochs=1)
            with pytest.raises(tn.errors.RecordError, match="a record is of one model: close it"):
                device.update(new)
            state = device.head_state()
        assert tn.device.replay(tmp_path / "record", old).head.state() == state
        device.update(new)
        with tn.device.record(device, tmp_path / "second"):
            device.fit(X[:6], Y[:6], epochs=1)
        assert tn.device.replay(tmp_path / "second", new).head.state() == device.head_state()


def test_a_lost_link_leaves_the_old_model_and_the_update_goes_on() -> None:
    old, new = make(width=WIDTH), make(seed=1, width=WIDTH)
    board = tn.device.QemuBoard(old.image)
    parts = 0

    class Pulled:
        """The board's stream; the cable is pulled after three parts."""

        def read(self, size: int) -> bytes:
            return board.read(size)

        def write(self, data: bytes) -> None:
            nonlocal parts
            parts += len(data) > 4000
            if parts == 4:
                raise ConnectionResetError("the cable was pulled")
            board.write(data)

        def close(self) -> None:
            pass

    with pytest.raises(tn.errors.ConnectionLost, match="cable was pulled"):
        tn.Device(Pulled(), nano=old).update(new)
    with tn.Device(board, nano=old) as device:
        assert device.info.update == 0 and same_prediction(device, old)
        result = device.update(new)
        assert result.sent == len(new.image) - 3 * 4096
        assert same_prediction(device, new)


def test_a_power_cut_at_any_moment_leaves_the_old_model_or_the_new_one(tmp_path: Path) -> None:
    models = [make(seed=seed, width=WIDTH) for seed in range(2)]
    own, flash = models[0], tmp_path / "flash"
    random = np.random.default_rng(SEED)
    with tn.Device(tn.device.QemuBoard(own.image, flash=tmp_path / "whole"), nano=own) as device:
        whole = device.update(models[1]).seconds
    running, ends = own, set[bool]()
    for cut, moment in enumerate(random.permutation((np.arange(CUTS) + random.random(CUTS)) / CUTS)):
        place = f"seed {SEED}, cut {cut}, after {moment:.3f} of {whole:.3f} s"
        board = tn.device.QemuBoard(own.image, flash=flash)
        device = tn.Device(board)
        new = models[1] if running is models[0] else models[0]
        assert device.info.model_id == running.id, place
        _write_all(board, device, new)
        time.sleep(moment * LATEST * whole)
        kill_quietly(board)
        with tn.Device(tn.device.QemuBoard(own.image, flash=flash)) as device:
            found = device.info
            assert found.model_id in (running.id, new.id), place
            known = new if found.model_id == new.id else running
            with tn.Device(device._link.stream, nano=known) as again:
                assert same_prediction(again, known), place
                if found.on_trial:
                    again.update(known)
        ends.add(found.model_id == new.id)
        running = known
    with tn.Device(tn.device.QemuBoard(own.image, flash=flash), nano=running) as device:
        new = models[1] if running is models[0] else models[0]
        device.update(new)
        assert same_prediction(device, new)
    assert ends == {False, True}, "the moments are not spread over the update"


def _write_all(board: tn.device.QemuBoard, device: tn.Device, nano: tn.NanoModule) -> None:
    """Writes all requests of an update to the board, without waiting for answers."""
    begin = _native.encode_request("begin_update", length=len(nano.image), id=nano.id)
    parts = [
        _native.encode_request("write_update", offset=offset, bytes=nano.image[offset : offset + 4096])
        for offset in range(0, len(nano.image), 4096)
    ]
    board.timeout = 60
    board.write(b"".join([begin, *parts, _native.encode_request("finish_update")]))


def kill_quietly(board: tn.device.QemuBoard) -> None:
    """As a power cut; answers that it had sent are dropped."""
    board._process.kill()
    with pytest.raises(BoardStopped):
        while True:
            board.read(1 << 16)


def test_the_board_that_senses_is_updated(tmp_path: Path) -> None:
    x = torch.randn(64, 6, 20, generator=torch.Generator().manual_seed(2))

    def sensing(seed: int, name: str = "motion", width: int = 8) -> tn.NanoModule:
        torch.manual_seed(seed)
        model = nn.Sequential(
            *(nn.Conv1d(6, width, 5), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()), nn.Linear(width, 3)
        )
        return tn.to_nano(model, x, calibrate=x, head="4", name=name, check=False)

    old, new, wide = sensing(0), sensing(0, "renamed"), sensing(1, width=12)
    samples = np.random.default_rng(3).standard_normal((200, 6))
    sensor = tn.device.RecordedSensor(samples, {}, options=tn.device.SensingOptions(hop=10, smoothing=(3, 2)))
    with tn.Device(tn.device.QemuBoard(old.image, sensor=sensor), nano=old) as device:
        before = list(device.watch())
        assert before[-1].event == "ended"
        with pytest.raises(
            tn.errors.UpdateError, match="same window and features: 120 and 8 bytes, not 120 and 12"
        ) as raised:
            device.update(wide)
        assert raised.value.failure == "Window"
        assert device.update(new).number == 1
        after = list(device.watch())
        # The reports of the new model begin with its start; each is replayed with its own model.
        assert after[0].event == "started"
        for reports, model in ((before, old), (after, new)):
            tn.device.replay_sensing(reports, sensor, model)


def test_the_command_line_updates_a_board(tmp_path: Path) -> None:
    old, new, other = make(), make(name="renamed"), make(seed=1, name="other")
    for nano, name in ((old, "old"), (new, "new"), (other, "other")):
        nano.save(tmp_path / f"{name}.nanomodel")
    other.export(tmp_path / "exported")
    flash = ["--flash", tmp_path / "flash"]
    told = run("update", "qemu", tmp_path / "new.nanomodel", "-m", tmp_path / "old.nanomodel", *flash)
    assert "update 1: renamed" in told and "the head goes on" in told
    told = run("info", "qemu", "-m", tmp_path / "old.nanomodel", *flash, status=1)
    assert "the device runs 'renamed'" in told
    # A board with another model of its own does not start the update.
    told = run("info", "qemu", "-m", tmp_path / "other.nanomodel", *flash)
    assert "other" in told
    told = run(
        "update", "qemu", tmp_path / "exported/model.nano", "-m", tmp_path / "old.nanomodel", *flash, status=1
    )
    assert "the device runs 'renamed'" in told
    missing = tmp_path / "missing.nanomodel"
    told = run("update", "qemu", missing, "-m", tmp_path / "other.nanomodel", *flash, status=1)
    assert f"{missing}: there is no such file" in told
