"""Card payments and how they ended. Gangs attack: for some days they pay a merchant with the stolen cards of a few
issuers, then they move on. A case is closed three to six days after the payment, charged back or not.
`python events.py` writes the events anew.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from headrace import simulate

DAYS, PER_DAY, SEED = 40, 1_500, 0
CARDS, MERCHANTS, ISSUERS, GANGS = 8_000, 300, 40, 6
LASTS = 20  # days of an attack


def events(until: np.datetime64) -> dict[str, pa.Table]:
    """Payments and outcomes before `until`."""
    draw = np.random.default_rng(SEED)
    at, hour = simulate.moments(draw, until, DAYS, PER_DAY)
    n = len(at)
    card = (CARDS * draw.random(n) ** 1.3).astype(int)
    issuer = card % ISSUERS
    merchant = (MERCHANTS * draw.random(n) ** 2).astype(int)
    online = draw.random(n) < 0.4
    abroad = draw.random(n) < 0.1
    logit = -6.5 + 1.0 * online + 1.2 * abroad + draw.normal(0, 0.5, MERCHANTS)[merchant]
    usual = draw.lognormal(3.2, 0.7, MERCHANTS)[merchant]
    amount = usual * np.exp(draw.normal(0, 0.6, n))

    attack = (
        hour // 24 + np.arange(GANGS)[:, None] * LASTS // GANGS
    ) // LASTS  # of each gang at each moment: [gang, n]
    for gang, number in enumerate(attack):
        victims = draw.integers(0, 40, 100)[number]  # a busy merchant …
        stolen = draw.integers(0, ISSUERS, (100, 8))[number]  # … and eight issuers
        hit = (merchant == victims) | (draw.random(n) < 0.008)
        merchant[hit] = victims[hit]
        logit[hit] += 2.5 + 3.0 * (stolen[hit] == issuer[hit, None]).any(axis=1)
        amount[hit & (draw.random(n) < 0.5)] = 1 + gang  # cards are tested with small amounts
    fraud = simulate.happens(draw, logit)
    payment = simulate.named("p", np.arange(n))
    payments = {
        "payment": payment,
        "paid_at": at,
        "card": simulate.named("c", card),
        "issuer": simulate.named("b", issuer),
        "merchant": simulate.named("m", merchant),
        "trade": simulate.named("t", merchant % 12),
        "device": np.where(online, simulate.named("d", card * 2 + (draw.random(n) < 0.2)), ""),
        "entry": np.where(online, "online", np.where(amount < 50, "contactless", "chip")),
        "country": np.where(abroad, draw.choice(["FR", "US", "BR", "TH"], n), "DE"),
        "amount": np.round(amount, 2),
    }
    outcomes = {
        "payment": payment,
        "known_at": simulate.after(at, 86_400 * draw.uniform(3, 6, n)),
        "fraud": fraud.astype(int),
    }
    return {"events/payments.csv": pa.table(payments), "events/outcomes.csv": pa.table(outcomes)}


if __name__ == "__main__":
    simulate.write(events(simulate.midnight()), simulate.midnight(), Path(__file__).parent)
