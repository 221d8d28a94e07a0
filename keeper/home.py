"""A node's home: the directory that `keeper init` makes and `keeper run` lives in.

keeper.toml  network.json  keys/  keeper.db  keeper.log (where a supervisor writes it)
"""

import shutil
from pathlib import Path

from keeper import config, keys, network
from keeper.errors import ConfigError
from keeper.keys import Keys
from keeper.units import ChainId
from p2p.frost.keyfile import SAFE, Work


def make(
    home: Path,
    network_file: Path,
    endpoints: dict[ChainId, tuple[str, ...]],
    password: str,
    *,
    mode: str,
    p2p_port: int,
    http_port: int,
    bootstrap: tuple[str, ...] = (),
    password_file: Path | None = None,
    work: Work = SAFE,
) -> Keys:
    """Write configuration, descriptor and sealed keys into an empty or new directory.

    Raises:
        ConfigError: the home is not empty, or a chain has no endpoint.
        KeyFileError: a key file cannot be written.
    """
    spec = network.load(network_file)
    missing = [chain.id for chain in spec.chains if chain.id not in endpoints]
    if missing:
        raise ConfigError(
            f"no endpoint for chain {missing[0]}", where="--rpc", remedy="give one for each chain"
        )
    if home.exists() and any(home.iterdir()):
        raise ConfigError("the home is not empty", where=str(home), remedy="choose another one")
    home.mkdir(parents=True, exist_ok=True)
    made = keys.create(home / "keys", password, work)
    shutil.copyfile(network_file, home / "network.json")
    (home / "keeper.toml").write_text(
        config.render(
            mode=mode,
            password_file=str(password_file.resolve()) if password_file else "",
            p2p_port=p2p_port,
            bootstrap=bootstrap,
            http_port=http_port,
            endpoints=endpoints,
        )
    )
    return made
