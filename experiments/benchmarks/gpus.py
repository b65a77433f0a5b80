"""GPUs that programs can be compiled for without having one, as XLA describes them."""

from __future__ import annotations

import dataclasses

from experiments.system.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class GPU:
    """What XLA's compiler asks about a GPU. Sizes in bytes, the bandwidth in bytes per second.

    Attributes:
      name: as its driver gives it.
      major, minor: compute capability.
      cores: streaming multiprocessors.
      threads_per_core: the most threads of one multiprocessor.
      float32_units: of one multiprocessor.
      shared_memory: of one multiprocessor; a block gets at most 1,024 less.
      l2_cache: of the whole device.
      memory: of the whole device.
      bandwidth: of the memory.
      clock_ghz: the highest.
    """

    name: str
    major: int
    minor: int
    cores: int
    threads_per_core: int
    float32_units: int
    shared_memory: int
    l2_cache: int
    memory: int
    bandwidth: int
    clock_ghz: float

    def target(self) -> str:
        """The description as the text of XLA's GpuTargetConfigProto."""
        return f"""
            gpu_device_info {{
              threads_per_block_limit: 1024
              threads_per_warp: 32
              shared_memory_per_block: 49152
              shared_memory_per_block_optin: {self.shared_memory - 1024}
              shared_memory_per_core: {self.shared_memory}
              threads_per_core_limit: {self.threads_per_core}
              core_count: {self.cores}
              fpus_per_core: {self.float32_units}
              block_dim_limit_x: 2147483647
              block_dim_limit_y: 65535
              block_dim_limit_z: 65535
              memory_bandwidth: {self.bandwidth}
              l2_cache_size: {self.l2_cache}
              clock_rate_ghz: {self.clock_ghz}
              device_memory_size: {self.memory}
              cuda_compute_capability {{ major: {self.major} minor: {self.minor} }}
              registers_per_core_limit: 65536
              registers_per_block_limit: 65536
              name: "{self.name}"
              driver_version: "13.0.0"
              runtime_version: "13.0.0"
              compile_time_toolkit_version: "13.0.0"
              dnn_version: "9.10.0"
              device_vendor: "NVIDIA Corporation"
            }}
            platform_name: "CUDA"
            dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
            device_description_str: "{self.name}"
        """


# From NVIDIA's data sheets and the tables of the CUDA programming guide.
GPUS = {
    "a100": GPU(
        "NVIDIA A100-SXM4-80GB", 8, 0, 108, 2048, 64, 164 << 10, 40 << 20, 80 << 30,
        2_039_000_000_000, 1.41,
    ),
    "h100": GPU(
        "NVIDIA H100 80GB HBM3", 9, 0, 132, 2048, 128, 228 << 10, 50 << 20, 79 << 30,
        3_352_000_000_000, 1.98,
    ),
    "h200": GPU(
        "NVIDIA H200", 9, 0, 132, 2048, 128, 228 << 10, 50 << 20, 140 << 30,
        4_800_000_000_000, 1.98,
    ),
}  # fmt: skip


def named(name: str) -> GPU:
    """The GPU of this name.

    Raises:
      ConfigError: there is no description of it.
    """
    if name not in GPUS:
        raise ConfigError("gpu", name, ", ".join(GPUS))
    return GPUS[name]
