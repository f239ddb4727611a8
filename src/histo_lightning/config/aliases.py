"""What users of Lightning and of other Hydra projects type, and what it is called here."""

# Advice, and the names that it answers: they look nothing like what they mean, so this comes before the nearest name.
ADVICE = {
    "epochs=<n>": "trainer.max_epochs max_epochs num_epochs",
    "callbacks.early_stopping.patience=<n>": "trainer.min_epochs early_stopping.patience patience",
    "trainer.devices=<n>, or trainer=gpu": "trainer.gpus gpus",
    "the group callbacks, for example callbacks=[default,ema]": "trainer.callbacks",
    "the group logger, for example logger=[tensorboard,csv]": "trainer.logger",
    "output_dir=<folder>": "trainer.default_root_dir",
    "trainer.progress=none": "trainer.enable_progress_bar trainer.enable_model_summary",
    "~callbacks.model_checkpoint": "trainer.enable_checkpointing",
    "callbacks: plugins are this project's own": "trainer.plugins",
    "nothing: every process takes its share of each batch already": "trainer.use_distributed_sampler",
    "resume=<checkpoint>": "trainer.resume_from_checkpoint resume_from_checkpoint",
    "optimizer.lr=<rate>": "lr learning_rate model.lr optimizer.learning_rate model.optimizer.lr",
    "optimizer.weight_decay=<number>": "weight_decay",
    "optimizer.momentum=<number>": "momentum",
    "trainer.gradient_clip_val=<norm>": "gradient_clip_val optimizer.clip_norm",
    "trainer.accumulate_grad_batches=<n>": "accumulate_grad_batches",
    "trainer.precision=<precision>": "precision",
    "trainer.devices=<n>": "devices",
    "trainer.accelerator=<cpu or gpu>": "accelerator",
    "trainer=ddp": "strategy",
    "debug=fast_dev_run": "fast_dev_run",
    "debug=overfit": "overfit_batches",
    "resume=<checkpoint> (train) or checkpoint=<checkpoint> (the other commands)": "ckpt_path",
    "checkpoint=<checkpoint>": "ckpt",
    "seed=<n>": "seed_everything",
    "dataset=<option>": "data datamodule",
    "dataset.root=<folder>": "data_dir",
    "batch_size=<n>": "data.batch_size bs",
    "trainer.workers=<n>": "data.num_workers num_workers",
    "model=<option>": "net model.net arch backbone model.name",
    "optimizer=<option>": "optimizer.name",
    "scheduler=<option>": "scheduler.name",
    "class_weights and label_smoothing: the loss is cross entropy": "loss",
    "callbacks=[default,early_stopping]; ~callbacks.early_stopping takes it out": "early_stopping",
    "callbacks.early_stopping.monitor=<score>": "early_stopping.monitor",
    "callbacks=[default,ema]": "ema",
    "callbacks=[default,ema] callbacks.ema.decay=<decay>": "ema.decay",
    "callbacks.model_checkpoint.<argument>": "model_checkpoint",
    "python -m histo_lightning.tune, which searches with Optuna": "hydra/sweeper",
    "run_name=<name>": "task_name exp_name experiment_name tags",
    "split.fold=<k>": "fold",
    "image_size=<pixels>": "img_size",
    "magnification=<option>": "zoom",
}
ALIASES = {name: advice for advice, names in ADVICE.items() for name in names.split()}


def advice(name: str) -> str:
    """``; here it is ...`` for a key that has another name here, else nothing."""
    return f"; here it is {ALIASES[name]}" if name in ALIASES else ""
