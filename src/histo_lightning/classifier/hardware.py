"""What the machine has: probed, not assumed."""

import os
from dataclasses import dataclass

import torch

from histo_lightning.config.schema import TrainerConfig
from histo_lightning.errors import UserError

MOST_THREADS = 8  # a core, beyond which threads only wait for each other


@dataclass(frozen=True)
class Hardware:
    """Resolved trainer settings: ``accelerator`` (cpu or gpu), ``precision``, ``compile``, CPU ``threads``."""

    accelerator: str
    precision: str
    compile: bool
    threads: int


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX); emulation would be slower than float32."""
    return any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0))


def visible_gpus() -> int:
    """GPUs that torch sees."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def resolve(trainer: TrainerConfig) -> Hardware:
    """Settle what ``auto`` means on this machine; UserError where a GPU was asked for and is missing."""
    gpus = visible_gpus()
    on_gpu = trainer.accelerator == "gpu" or (trainer.accelerator == "auto" and gpus > 0)
    shown, most = f"this machine shows {gpus} GPU(s)", MOST_THREADS * cores()
    if on_gpu and gpus < trainer.devices:
        problem = f"trainer.accelerator=gpu, trainer.devices={trainer.devices}: {shown}"
        raise UserError(f"{problem}; use trainer=cpu, or check the driver with nvidia-smi")
    if on_gpu and trainer.gpu is not None and trainer.gpu >= gpus:
        raise UserError(f"trainer.gpu={trainer.gpu}: {shown}, the first is 0")
    if (trainer.threads or 0) > most:
        problem = f"this machine gives the process {cores()} cores"
        raise UserError(f"trainer.threads={trainer.threads}: {problem}; allowed are at most {most}")
    precision = trainer.precision
    if precision == "auto":
        bf16 = torch.cuda.is_bf16_supported() if on_gpu else cpu_has_bf16()
        precision = "bf16-mixed" if bf16 else "16-mixed" if on_gpu else "32-true"
    if precision == "16-mixed" and not on_gpu:
        raise UserError("trainer.precision=16-mixed: needs a GPU; on a CPU use bf16-mixed or 32-true")
    compiled = on_gpu if trainer.compile == "auto" else trainer.compile == "true"
    wanted = os.environ.get("OMP_NUM_THREADS", "")  # as torch itself does
    asked = min(int(wanted), most) if wanted.isdecimal() else 0
    threads = trainer.threads or asked or max(cores() // trainer.devices, 1)
    return Hardware("gpu" if on_gpu else "cpu", precision, compiled, threads)


def device_of(trainer: TrainerConfig) -> torch.device:
    """The device of a command that does not train: the GPU asked for, else the first one, else the CPU."""
    hardware = resolve(trainer)
    torch.set_num_threads(hardware.threads)
    return torch.device("cuda", trainer.gpu or 0) if hardware.accelerator == "gpu" else torch.device("cpu")
