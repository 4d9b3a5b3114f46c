"""The campaigns and their ads, PURE: random ids from a seed, as many ads for each campaign."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from uuid import UUID

from frieda.errors import ConfigError

DEFAULT_CAMPAIGNS = 100
DEFAULT_ADS_PER_CAMPAIGN = 10
MAX_ADS = 1_000_000


@dataclass(frozen=True, slots=True)
class Campaigns:
    """The ids of all campaigns, and of all ads: those of the first campaign, of the second..."""

    ids: tuple[str, ...]
    ads: tuple[str, ...]

    @classmethod
    def seeded(
        cls,
        seed: int,
        campaigns: int = DEFAULT_CAMPAIGNS,
        ads_per_campaign: int = DEFAULT_ADS_PER_CAMPAIGN,
    ) -> Self:
        """The same ids for the same seed. Raises ConfigError for a number out of range."""
        if campaigns < 1 or ads_per_campaign < 1 or campaigns * ads_per_campaign > MAX_ADS:
            raise ConfigError(
                f"campaigns = {campaigns}, ads_per_campaign = {ads_per_campaign}: "
                f"must be at least 1 each, and {MAX_ADS} ads in all at most"
            )
        generator = random.Random(f"campaigns {seed}")
        ids = tuple(random_id(generator) for _ in range(campaigns))
        return cls(ids, tuple(random_id(generator) for _ in range(campaigns * ads_per_campaign)))

    def by_ad(self) -> Mapping[str, str]:
        """The campaign of each ad."""
        each = len(self.ads) // len(self.ids)
        return {ad: self.ids[number // each] for number, ad in enumerate(self.ads)}


def random_id(generator: random.Random) -> str:
    """A random UUID (version 4) as text."""
    return str(UUID(int=generator.getrandbits(128), version=4))
