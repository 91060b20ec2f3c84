"""Which router a user belongs to, and who moves when routers come and go."""

import subprocess
import sys
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from rangefinder.client.affinity import Affinity

USERS = [f"user-{number}" for number in range(10_000)]

names = st.lists(st.text(max_size=20), min_size=1, max_size=8, unique=True)


def order(routers: list[str], user_id: str) -> list[str]:
    """Names of the routers, the user's own first."""
    return [routers[place] for place in Affinity(routers).order(user_id)]


def own(routers: list[str]) -> dict[str, str]:
    """The router of each of USERS."""
    affinity = Affinity(routers)
    return {user: routers[affinity.order(user)[0]] for user in USERS}


def addresses(count: int) -> list[str]:
    return [f"10.0.0.{number}:7000" for number in range(1, count + 1)]


@given(names, st.text(max_size=20), st.data())
def test_every_client_comes_to_the_same_order(
    routers: list[str], user: str, data: st.DataObject
) -> None:
    """The order names each router once, whatever the order in which a client was given them."""
    shuffled = data.draw(st.permutations(routers))
    found = order(routers, user)
    assert sorted(routers) == sorted(found)
    assert found == order(shuffled, user)


@given(names, st.text(max_size=20), st.data())
def test_a_router_that_leaves_moves_its_own_users_alone(
    routers: list[str], user: str, data: st.DataObject
) -> None:
    """Without one router the rest stand in the same order: so only its users move, to their next;
    and one that joins takes users, but moves none between the others."""
    gone = data.draw(st.sampled_from(routers))
    left = [each for each in routers if each != gone]
    assert [each for each in order(routers, user) if each != gone] == order(left, user)


def test_few_users_move_and_they_spread_evenly() -> None:
    """Of 10,000 users on three routers a fourth takes 2,500 ± 10 %; when one of the four leaves, its
    users go to the other three in parts that are as even; each router has its share ± 10 %."""
    three, four = own(addresses(3)), own(addresses(4))
    moved = [user for user in USERS if three[user] != four[user]]
    assert {addresses(4)[3]} == {four[user] for user in moved}
    assert 2_250 < len(moved) < 2_750
    inherited = Counter(three[user] for user in moved)
    shares = [*Counter(three.values()).values(), *(4 * count for count in inherited.values())]
    assert (6, True) == (len(shares), all(3_000 < share < 3_667 for share in shares))


def test_another_process_comes_to_the_same_order() -> None:
    """The order does not hang on what Python hashes differently in each process."""
    code = (
        "from rangefinder.client.affinity import Affinity\n"
        f"print([Affinity({addresses(5)}).order(user) for user in {USERS[:20]}])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert str([Affinity(addresses(5)).order(user) for user in USERS[:20]]) == told.stdout.strip()
