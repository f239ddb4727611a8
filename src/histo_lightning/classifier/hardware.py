"""What the machine has: probed, not assumed."""

import os
from dataclasses import dataclass

import torch

from histo_lightning.config.schema import TrainerConfig
from histo_lightning.errors import UserError


@dataclass(frozen=True)
class Hardware:
    """Resolved trainer settings: ``accelerator`` (cpu or gpu), ``precision``, ``compile``, CPU ``threads``."""

    accelerator: str
    precision: str
    compile: bool
    threads: int


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX); emulation would be slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0))


def visible_gpus() -> int:
    """GPUs that torch sees."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def resolve(trainer: TrainerConfig) -> Hardware:
    """Settle what ``auto`` means on this machine.

    Raises:
        UserError: a GPU was asked for and none, or too few, are there.
    """
    gpus = visible_gpus()
    accelerator = trainer.accelerator
    if accelerator == "auto":
        accelerator = "gpu" if gpus else "cpu"
    if accelerator == "gpu" and gpus < trainer.devices:
        raise UserError(
            f"trainer.accelerator=gpu, trainer.devices={trainer.devices}: this machine shows {gpus} GPU(s); "
            "use trainer=cpu, or check the driver with nvidia-smi"
        )
    if accelerator == "gpu" and trainer.gpu is not None and trainer.gpu >= gpus:
        raise UserError(f"trainer.gpu={trainer.gpu}: this machine shows {gpus} GPU(s), the first is 0")
    if trainer.precision != "auto":
        precision = trainer.precision
    elif accelerator == "gpu":
        precision = "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    else:
        precision = "bf16-mixed" if cpu_has_bf16() else "32-true"
    if precision == "16-mixed" and accelerator == "cpu":
        raise UserError("trainer.precision=16-mixed: needs a GPU; on a CPU use bf16-mixed or 32-true")
    compiled = accelerator == "gpu" if trainer.compile == "auto" else trainer.compile == "true"
    threads = trainer.threads or max(cores() // trainer.devices, 1)
    return Hardware(accelerator, precision, compiled, threads)


def device_of(trainer: TrainerConfig) -> torch.device:
    """The device of a command that does not train: the GPU asked for, else the first one, else the CPU.

    Raises:
        UserError: see :func:`resolve`.
    """
    hardware = resolve(trainer)
    torch.set_num_threads(hardware.threads)
    return torch.device("cuda", trainer.gpu or 0) if hardware.accelerator == "gpu" else torch.device("cpu")
