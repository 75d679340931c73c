"""A network in training inside Lightning's loop."""

import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
import torch.nn.functional as F
import torch_nano as tn
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torch_nano.integrations.lightning import QatSchedule

# Lightning's advice on loaders, loggers and its own use of torch.
pytestmark = pytest.mark.filterwarnings("ignore::Warning")


class Classifier(lightning.LightningModule):
    """What a user writes; it notes what the schedule has done by each epoch."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.seen: list[tuple[bool, bool]] = []
        self.losses: list[float] = []

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self.network(x), y)
        self.losses.append(loss.item())
        return loss

    def on_train_epoch_end(self) -> None:
        if isinstance(self.network, tn.qat.QatModule):
            folded = self.network._folds_batch_norm
            self.seen.append((folded, bool(self.network.quantization_ranges.frozen.all())))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def digits() -> tuple[Tensor, Tensor]:
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16, torch.tensor(y)


def prepared() -> tuple[Classifier, Tensor, DataLoader[Any]]:
    x, y = digits()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 10)
        )
    qat = tn.prepare_qat(model, x[:2], calibrate=x[:200], batch_norm="batch_statistics", momentum=0.1)
    return Classifier(qat), x, DataLoader(TensorDataset(x[:1000], y[:1000]), batch_size=100)


def trainer(folder: Path, **options: Any) -> lightning.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return lightning.Trainer(accelerator="cpu", devices=1, default_root_dir=folder, **quiet, **options)


def test_batch_norms_are_folded_and_ranges_frozen_on_time(tmp_path: Path) -> None:
    classifier, x, loader = prepared()
    schedule = QatSchedule(fold_batch_norm_at=2, freeze_ranges_at=3)
    trainer(
        tmp_path,
        max_epochs=4,
        callbacks=[schedule],
        enable_checkpointing=False,
        precision="bf16-mixed",
        gradient_clip_val=1.0,
        accumulate_grad_batches=2,
    ).fit(classifier, loader)
    assert classifier.seen == [(False, False), (False, False), (True, False), (True, True)]
    assert sum(classifier.losses[-10:]) < 0.7 * sum(classifier.losses[:10])
    qat = classifier.network
    assert isinstance(qat, tn.qat.QatModule)
    with torch.no_grad():
        trained = qat.train()(x[-500:])
    assert torch.equal(trained.view(torch.int32), qat.to_nano()(x[-500:]).view(torch.int32))


def test_a_resumed_run_is_folded_and_frozen_at_once(tmp_path: Path) -> None:
    classifier, _, loader = prepared()
    first = trainer(tmp_path, max_epochs=2, callbacks=[QatSchedule(fold_batch_norm_at=1, freeze_ranges_at=1)])
    first.fit(classifier, loader)
    first.save_checkpoint(tmp_path / "last.ckpt")
    resumed, _, loader = prepared()
    second = trainer(
        tmp_path, max_epochs=3, callbacks=[QatSchedule(fold_batch_norm_at=1, freeze_ranges_at=1)]
    )
    second.fit(resumed, loader, ckpt_path=tmp_path / "last.ckpt")
    assert resumed.seen == [(True, True)]
    bounds = [module.network.quantization_ranges.bounds for module in (classifier, resumed)]
    assert torch.equal(*bounds)


def test_wrong_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(tn.errors.InputError, match=r"epoch -1: expected a number from 0 on"):
        QatSchedule(freeze_ranges_at=-1)
    _, _, loader = prepared()
    plain = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    with pytest.raises(
        tn.errors.InputError, match="Classifier has no QatModule: keep what prepare_qat returns"
    ):
        trainer(tmp_path, max_epochs=1, callbacks=[QatSchedule()], enable_checkpointing=False).fit(
            plain, loader
        )
