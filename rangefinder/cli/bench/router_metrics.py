"""What a router says of itself while it is measured."""

import asyncio
from dataclasses import dataclass

from rangefinder.cli.bench.trials import Sent
from rangefinder.telemetry.gathered import read_counts, read_samples


@dataclass(frozen=True, slots=True)
class RouterMetrics:
    """Metrics of a router, all of its workers together; None where it does not answer."""

    address: str

    async def sent(self) -> Sent | None:
        """Queries sent to replicated nodes until now."""
        name = "rangefinder_queries_sent_total"
        counts = await asyncio.to_thread(read_counts, self.address, name, "kind")
        if not counts:
            return None
        return Sent(first=counts["first"], hedge=counts["hedge"], retry=counts["retry"])

    async def hedge_delay_s(self) -> float | None:
        """How long a node is waited for until others are asked, too; of the most patient worker."""
        return await self._most("rangefinder_hedge_delay_seconds")

    async def nodes_usable(self) -> float | None:
        """Nodes that searches are sent to, in the worker that has most of them."""
        return await self._most("rangefinder_nodes_usable")

    async def _most(self, name: str) -> float | None:
        return max(await asyncio.to_thread(read_samples, self.address, name), default=None)
