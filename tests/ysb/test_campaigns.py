"""Campaigns and ads follow from the seed."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

import pytest

from frieda.errors import ConfigError
from frieda.ysb.campaigns import Campaigns


def test_every_campaign_has_as_many_ads_and_all_ids_differ() -> None:
    campaigns = Campaigns.seeded(3, campaigns=7, ads_per_campaign=4)
    assert Counter(campaigns.by_ad().values()) == dict.fromkeys(campaigns.ids, 4)
    assert len({*campaigns.ids, *campaigns.ads}) == 7 + 28
    assert all(UUID(each).version == 4 for each in (*campaigns.ids, *campaigns.ads))


def test_the_same_seed_gives_the_same_ids_and_another_gives_others() -> None:
    assert Campaigns.seeded(1) == Campaigns.seeded(1)
    assert not set(Campaigns.seeded(1).ids) & set(Campaigns.seeded(2).ids)
    assert (len(Campaigns.seeded(1).ids), len(Campaigns.seeded(1).ads)) == (100, 1000)


@pytest.mark.parametrize(("campaigns", "ads"), [(0, 1), (1, 0), (1001, 1000)])
def test_a_number_out_of_range_is_refused(campaigns: int, ads: int) -> None:
    with pytest.raises(ConfigError, match="must be at least 1 each"):
        Campaigns.seeded(1, campaigns, ads)
