"""Trains hadal-nano. Can be stopped at any time and resumed from its last checkpoint.

The schedule follows the budget: a short warm-up, a plateau, then a linear fall to zero. The budget is a number
of tokens (reproducible) and, if given, minutes (whichever ends first), so that a run is annealed on time.
"""

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from batches import Batch, BatchMaker
from config import NanoConfig
from corpus import CorpusMaker
from exported import load_exported
from heldout import held_out_keys
from layers import Fused
from model import NanoModel
from optimizer import build_optimizers

WARMUP_STEPS = 60
MTP_LOSS_WEIGHT = 0.1
MTP_ROWS = 4  # the MTP layer trains on one row in four: it is a side product and should cost little
BALANCE_SPEED = 0.002


@dataclass
class Progress:
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    pool: int = 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, default=Path("models/nano/tokenizer.json"))
    parser.add_argument("--checkpoint", type=Path, required=True, help="file to resume from and to write")
    parser.add_argument("--start-from", type=Path, help="exported folder whose weights a new checkpoint starts from")
    parser.add_argument("--tokens", type=float, default=40e6, help="token budget, padding included")
    parser.add_argument("--minutes", type=float, default=0, help="time budget, earlier runs included; 0: none")
    parser.add_argument("--decay-from", type=float, default=0.2, help="fraction of the budget where the rate starts to fall")
    parser.add_argument("--fp8-from", type=float, default=0.8, help="fraction from which weights are rounded to FP8 in training")
    parser.add_argument("--batch-tokens", type=int, default=6144)
    parser.add_argument("--muon-lr", type=float, default=0.006)
    parser.add_argument("--adam-lr", type=float, default=0.0015)
    parser.add_argument("--result-weight", type=float, default=3.0, help="loss weight of a digit that must be computed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save-minutes", type=float, default=3)
    return parser.parse_args()


def budget_used(p: Progress, arguments: argparse.Namespace) -> float:
    by_time = p.seconds / (arguments.minutes * 60) if arguments.minutes else 0.0
    return max(p.tokens / arguments.tokens, by_time)


def rate_factor(used: float, step: int, decay_from: float) -> float:
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return warm * min(1.0, max(0.0, (1.0 - used) / (1.0 - decay_from)))


def losses(model: NanoModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The main loss and the multi-token-prediction loss."""
    tokens = batch.tokens
    hidden = model.hidden_states(tokens)
    main = model.token_loss(hidden[:, :-1], tokens[:, 1:], batch.weight[:, 1:])
    rows = slice(0, max(2, len(tokens) // MTP_ROWS))  # never one row: torch.compile would specialise on it
    ahead = model.mtp_hidden_states(hidden[rows], tokens[rows])
    return main, model.token_loss(ahead[:, :-1], tokens[rows, 2:], batch.weight[rows, 2:])


class Workers:
    """Data parallelism by threads: each takes every n-th row of a batch and one core.

    Letting PyTorch split every operation over the cores instead costs a barrier per operation, which is slow for a
    model this small, and very slow when something else wants one of the cores.
    """

    def __init__(self, model: NanoModel, count: int) -> None:
        Fused.prepare_thread()
        self._model, self._parameters, self.count = model, list(model.parameters()), count
        self._sequential_steps = 3  # torch.compile must not trace while another thread runs the model
        self.pool = ThreadPoolExecutor(count, initializer=Fused.prepare_thread)

    def _gradients(self, batch: Batch) -> tuple[float, float, tuple[torch.Tensor, ...]]:
        main, mtp = losses(self._model, batch)
        total = (main + MTP_LOSS_WEIGHT * mtp) / self.count
        return main.item(), mtp.item(), torch.autograd.grad(total, self._parameters)

    def backward(self, batch: Batch) -> tuple[float, float]:
        """Sets the gradients; returns the mean losses."""
        parts = [Batch(batch.tokens[i :: self.count], batch.weight[i :: self.count]) for i in range(self.count)]
        if self._sequential_steps > 0:
            self._sequential_steps -= 1
            results = [self.pool.submit(self._gradients, part).result() for part in parts]
        else:
            results = list(self.pool.map(self._gradients, parts))
        for parameter, *gradients in zip(self._parameters, *(r[2] for r in results)):
            parameter.grad = gradients[0]
            for other in gradients[1:]:
                parameter.grad.add_(other)
        return sum(r[0] for r in results) / self.count, sum(r[1] for r in results) / self.count


def save(path: Path, model: NanoModel, optimizers: list, progress: Progress) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    torch.save({"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers],
                "progress": vars(progress)}, scratch)
    os.replace(scratch, path)


def resume(path: Path, start_from: Path | None, model: NanoModel, optimizers: list) -> Progress:
    if not path.exists():
        if start_from:
            model.load_state_dict(load_exported(start_from)[0].state_dict())
        return Progress()
    stored = torch.load(path, weights_only=True)
    model.load_state_dict(stored["model"])
    for optimizer, state in zip(optimizers, stored["optimizers"]):
        peaks = [group["peak_lr"] for group in optimizer.param_groups]  # the command line wins over the checkpoint
        optimizer.load_state_dict(state)
        for group, peak in zip(optimizer.param_groups, peaks):
            group["peak_lr"] = peak
    progress = Progress(**stored["progress"])
    progress.pool += 1
    return progress


class Log:
    """Prints running means every few steps."""

    def __init__(self, every: int = 25) -> None:
        self._every = every
        self._reset()

    def _reset(self) -> None:
        self._steps, self._main, self._mtp, self._tokens, self._since = 0, 0.0, 0.0, 0, time.time()

    def add(self, p: Progress, main: float, mtp: float, tokens: int, rate: float) -> None:
        self._steps, self._tokens = self._steps + 1, self._tokens + tokens
        self._main, self._mtp = self._main + main, self._mtp + mtp
        if p.step % self._every == 0:
            speed = self._tokens / (time.time() - self._since)
            print(f"step {p.step} tokens {p.tokens / 1e6:.2f}M min {p.seconds / 60:.1f} loss {self._main / self._steps:.4f} "
                  f"mtp {self._mtp / self._steps:.4f} rate {rate:.3f} tok/s {speed:.0f}", flush=True)
            self._reset()


def train_step(model: NanoModel, workers: Workers, optimizers: list, batch: Batch, rate: float) -> tuple[float, float]:
    """One update of everything; returns the losses."""
    for group in (g for o in optimizers for g in o.param_groups):
        group["lr"] = group["peak_lr"] * rate
    main_loss, mtp_loss = workers.backward(batch)
    for optimizer in optimizers:
        optimizer.step()
    model.zero_grad(set_to_none=True)
    for gate in model.gates():
        gate.rebalance(BALANCE_SPEED * rate)
    return main_loss, mtp_loss


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    Fused.compile()
    model = NanoModel(NanoConfig())
    workers = Workers(model, arguments.threads)
    optimizers = build_optimizers(model, workers.pool, arguments.muon_lr, arguments.adam_lr)
    p = resume(arguments.checkpoint, arguments.start_from, model, optimizers)
    maker = BatchMaker(Tokenizer.from_file(str(arguments.tokenizer)), CorpusMaker(held_out_keys()), arguments.seed,
                       arguments.batch_tokens, arguments.result_weight)
    log, last_save = Log(), time.time()
    for p.pool, batch in maker.batches(p.pool):
        started, used = time.time(), budget_used(p, arguments)
        if used >= 1.0:
            break
        if used >= arguments.fp8_from:
            model.simulate_fp8()
        rate = rate_factor(used, p.step, arguments.decay_from)
        main_loss, mtp_loss = train_step(model, workers, optimizers, batch, rate)
        p.step, p.tokens, p.seconds = p.step + 1, p.tokens + batch.tokens.numel(), p.seconds + time.time() - started
        log.add(p, main_loss, mtp_loss, batch.tokens.numel(), rate)
        if time.time() - last_save > arguments.save_minutes * 60:
            save(arguments.checkpoint, model, optimizers, p)
            last_save = time.time()
    save(arguments.checkpoint, model, optimizers, p)


if __name__ == "__main__":
    main()
