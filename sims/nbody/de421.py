"""Write solar-system.toml from the DE421 ephemeris, and say how far Newtonian point masses stay from it.

Development time only: needs the packages skyfield-data (which holds de421.bsp) and jplephem. Run from anywhere:

    python sims/nbody/de421.py             # writes solar-system.toml and tests/data/solar-system-2020.json
    python sims/nbody/de421.py --errors    # prints the error table of README.md

Source: Folkner, Williams & Boggs, The Planetary and Lunar Ephemeris DE 421, IPN Progress Report 42-178 (2009).
"""

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
from scipy.integrate import solve_ivp

HERE = Path(__file__).resolve().parent
CASE = HERE / "solar-system.toml"
REFERENCE = HERE.parents[1] / "tests" / "data" / "solar-system-2020.json"

START = 2451545.0  # J2000 [JD, TDB]
DAYS = 20 * 365.25
DT = 0.0625  # [d], exact in binary
EVERY = 315  # steps between snapshots: 19.69 d, near no simple fraction of an inner planet's year

AU = 149597870.6996262  # DE421's astronomical unit [km]
C = 299792.458 * 86400 / AU  # speed of light [au/d]
OBLIQUITY = np.radians(84381.448 / 3600)  # of the J2000 ecliptic, IAU 1976
SUN_KG = 132712440040.944e9 / 6.67430e-11  # the Sun's GM over CODATA 2018's G [kg]

# name: (path of segments from the barycentre, GM [km**3/s**2] as DE421 used it)
BODIES = {
    "Sun": (((0, 10),), 132712440040.944),
    "Mercury": (((0, 1),), 22032.090000),
    "Venus": (((0, 2),), 324858.592000),
    "Earth": (((0, 3), (3, 399)), 398600.436233),
    "Moon": (((0, 3), (3, 301)), 4902.800076),
    "Mars": (((0, 4),), 42828.375214),
    "Jupiter": (((0, 5),), 126712764.800000),
    "Saturn": (((0, 6),), 37940585.200000),
    "Uranus": (((0, 7),), 5794548.600000),
    "Neptune": (((0, 8),), 6836535.000000),
    "Pluto": (((0, 9),), 977.000000),
}
NAMES = list(BODIES)
SUN, EARTH, MOON = (NAMES.index(name) for name in ("Sun", "Earth", "Moon"))
GM = np.array([gm for _, gm in BODIES.values()]) * 86400.0**2 / AU**3  # [au**3/d**2]

# The Earth's oblateness: DE421's J2 and equatorial radius [au], and the pole of J2000 in the ecliptic frame
J2 = 0.001082625305
RADIUS = 6378.1363 / AU
POLE = np.array([0.0, np.sin(OBLIQUITY), np.cos(OBLIQUITY)])


def states(jd):
    """Barycentric states at the Julian date `jd` [TDB], axes of the J2000 ecliptic and equinox.

    Returns
    -------
    pos, vel : (11, 3) float64 in the order of `NAMES` [au], [au/d]; the Earth and the Moon are single bodies,
        Mars to Pluto are the barycentres of their systems
    """
    from jplephem.spk import SPK

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an old Earth orientation table in the package, not used here
        from skyfield_data import get_skyfield_data_path

        folder = get_skyfield_data_path()
    cos, sin = np.cos(OBLIQUITY), np.sin(OBLIQUITY)
    ecliptic = np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])
    kernel = SPK.open(str(Path(folder) / "de421.bsp"))
    found = np.array([
        sum(np.array(kernel[segment].compute_and_differentiate(jd)) for segment in segments)
        for segments, _ in BODIES.values()
    ])
    kernel.close()
    return found[:, 0] @ ecliptic.T / AU, found[:, 1] @ ecliptic.T / AU


def newton(pos):
    """Acceleration of point masses [au/d**2]; `pos` is (11, 3) [au]."""
    d = pos[None] - pos[:, None]
    r2 = np.einsum("ijk,ijk->ij", d, d)
    np.fill_diagonal(r2, 1.0)
    return np.einsum("ijk,ij->ik", d, GM / (r2 * np.sqrt(r2)))


def schwarzschild(pos, vel):
    """The Sun's first post-Newtonian term alone, harmonic coordinates; the Sun takes the recoil [au/d**2].

    a = GM / (c**2 r**3) ((4 GM / r - v**2) r + 4 (r.v) v), with r and v relative to the Sun.
    """
    r, v = pos - pos[SUN], vel - vel[SUN]
    d = np.sqrt((r * r).sum(1, keepdims=True))
    d[SUN] = 1.0
    rv, vv = (r * v).sum(1, keepdims=True), (v * v).sum(1, keepdims=True)
    a = GM[SUN] / (C**2 * d**3) * ((4 * GM[SUN] / d - vv) * r + 4 * rv * v)
    a[SUN] = -(GM[:, None] * a).sum(0) / GM[SUN]
    return a


def einstein_infeld_hoffmann(pos, vel):
    """First post-Newtonian terms of all pairs (general relativity: beta = gamma = 1) [au/d**2]."""
    d = pos[None] - pos[:, None]  # d[i, j] = r_j - r_i
    r = np.sqrt((d * d).sum(2))
    np.fill_diagonal(r, np.inf)
    pull = GM / r**3
    acc = np.einsum("ijk,ij->ik", d, pull)
    phi, vv = (GM / r).sum(1), (vel * vel).sum(1)
    along = (
        -4 * phi[:, None] - phi + vv[:, None] + 2 * vv - 4 * vel @ vel.T
        - 1.5 * (np.einsum("ijk,jk->ij", d, vel) / r) ** 2 + 0.5 * np.einsum("ijk,jk->ij", d, acc)
    )
    across = np.einsum("ijk,ijk->ij", -d, 4 * vel[:, None] - 3 * vel[None])
    a = np.einsum("ijk,ij->ik", d, pull * along) + 3.5 * (GM / r) @ acc
    return (a + np.einsum("ij,ijk->ik", pull * across, vel[:, None] - vel[None])) / C**2


def oblateness(pos, _vel):
    """Pull of the Earth's equatorial bulge (J2, pole of J2000) on the Moon, with the recoil [au/d**2]."""
    r = pos[MOON] - pos[EARTH]
    d = np.sqrt(r @ r)
    s = r @ POLE / d
    a = np.zeros_like(pos)
    a[MOON] = 1.5 * J2 * GM[EARTH] * RADIUS**2 / d**4 * ((5 * s * s - 1) * r / d - 2 * s * POLE)
    a[EARTH] = -GM[MOON] / GM[EARTH] * a[MOON]
    return a


def integrate(pos, vel, days, *terms):
    """Positions after `days` [d] under `newton` and further `terms(pos, vel)`: the physics without the time step.

    DOP853 at a relative tolerance of 1e-13.
    """

    def rhs(_, y):
        pos, vel = y.reshape(2, -1, 3)
        acc = sum((term(pos, vel) for term in terms), newton(pos))
        return np.concatenate((vel.ravel(), acc.ravel()))

    y = np.concatenate((pos.ravel(), vel.ravel()))
    return solve_ivp(rhs, (0, days), y, method="DOP853", rtol=1e-13, atol=1e-14).y[:, -1].reshape(2, -1, 3)[0]


def forest_ruth(pos, vel, days, dt):
    """Positions after `days` [d] by three leapfrogs a step, as the case runs it (Forest & Ruth 1990)."""
    w = 1 / (2 - 2 ** (1 / 3))
    pos, vel, acc = pos.copy(), vel.copy(), newton(pos)
    for _ in range(round(days / dt)):
        for h in (w * dt, (1 - 2 * w) * dt, w * dt):
            vel += 0.5 * h * acc
            pos += h * vel
            acc = newton(pos)
            vel += 0.5 * h * acc
    return pos


def distances(pos, reference):
    """Distance of each body from the reference [km], and last the geocentric one of the Moon."""
    d = pos - reference
    return np.linalg.norm(np.vstack((d, d[MOON] - d[EARTH])), axis=1) * AU


def errors():
    """Print the error table of README.md."""
    start, end = states(START), states(START + DAYS)[0]
    exact = integrate(*start, DAYS)
    columns = {
        "time step": distances(forest_ruth(*start, DAYS, DT), exact),
        "half of it": distances(forest_ruth(*start, DAYS, DT / 2), exact),
        "Newton": distances(exact, end),
        "+ Sun 1PN": distances(integrate(*start, DAYS, schwarzschild), end),
        "+ all 1PN": distances(integrate(*start, DAYS, einstein_infeld_hoffmann), end),
        "+ Earth J2": distances(integrate(*start, DAYS, einstein_infeld_hoffmann, oblateness), end),
    }
    columns["bound"] = bounds(columns["Newton"])
    away = distances(end, np.broadcast_to(end[SUN], end.shape))
    away[SUN], away[-1] = np.inf, np.linalg.norm(end[MOON] - end[EARTH]) * AU
    columns['Newton ["]'] = 3600 * np.degrees(columns["Newton"] / away)
    print(f"{'[km]':<18}" + "".join(f"{title:>12}" for title in columns))
    for k, name in enumerate([*NAMES, "Moon, geocentric"]):
        print(f"{name:<18}" + "".join(f"{column[k]:>12.{3 if i < 2 else 2}f}"
                                      for i, column in enumerate(columns.values())))
    drift = GM @ start[1] / GM.sum() * DAYS * AU
    print(f"the centre of mass of the eleven drifts by {np.linalg.norm(drift):.2f} km")


def bounds(error):
    """What a test may ask [km]: 1.6 times the Newtonian error, rounded up to two digits."""
    unit = 10.0 ** (np.floor(np.log10(1.6 * error)) - 1)
    return np.ceil(1.6 * error / unit) * unit


def write():
    """Write solar-system.toml and the reference positions with their bounds."""
    (pos, vel), end = states(START), states(START + DAYS)[0]
    lines = [HEADER.format(
        dt=DT, steps=round(DAYS / DT), evaluations=3 * round(DAYS / DT), every=EVERY,
        G=float(GM[SUN]), au=AU * 1e3, kg=SUN_KG,
    )]
    for k, name in enumerate(NAMES):
        lines.append(
            f'\n[[bodies]]\nname = "{name}"\nmass = {float(GM[k] / GM[SUN])!r}\n'
            f"position = {pos[k].tolist()}\nvelocity = {vel[k].tolist()}\n"
        )
    CASE.write_text("".join(lines))

    bound = bounds(distances(integrate(pos, vel, DAYS), end))
    bodies = {
        name: {"position": end[k].tolist(), "bound_km": float(f"{bound[k]:.3g}")} for k, name in enumerate(NAMES)
    }
    bodies["Moon"]["geocentric_bound_km"] = float(f"{bound[-1]:.3g}")
    reference = {
        "epoch_jd_tdb": START + DAYS,
        "frame": "solar-system barycentre, ecliptic and equinox of J2000 (obliquity 84381.448 arcsec)",
        "source": "DE421",
        "unit": "au",
        "au_km": AU,
        "bodies": bodies,
    }
    REFERENCE.parent.mkdir(parents=True, exist_ok=True)
    REFERENCE.write_text(json.dumps(reference, indent=1) + "\n")


HEADER = """\
# The Sun, the eight planets, Pluto and the Moon over 20 years, as Newtonian point masses.
#
# Shows: the fourth-order integrator on real orbits; Mercury's missing relativity; the Moon as a separate body.
# Cost: {steps} steps of three force evaluations, {evaluations} evaluations of 11 bodies: the calls cost, not the sums.
# Must hold: after 20 years each body is within the bound of tests/data/solar-system-2020.json of DE421, which is
#   1.6 times what Newtonian point masses miss (Mercury 770 km, the Moon 355 km from the Earth: README.md says
#   why). The step's own error is 28 km for Mercury, 24 km for the Moon from the Earth, below 1 km for all others;
#   halving dt divides it by 16 (Mercury) and 5 (the Moon).
# Snapshots every 19.69 days, 373 in all: near no simple fraction of an inner planet's year, so that their points fill
#   each inner orbit with no gap above 1.6 degrees (joined in order of time they do not draw it).
#
# States at J2000 (JD 2451545.0 TDB) from DE421, barycentric, axes of the ecliptic and equinox of J2000 (ICRF turned
# by 84381.448 arcsec about x); Mars to Pluto are the barycentres of their systems, with the systems' masses.
# Written by de421.py: change it there.

model = "bodies"
integrator = "forest-ruth"
precision = "float64"
dt = {dt!r}
steps = {steps}
every = {every}
sample = {every}
seed = 0
softening = 0.0
G = {G!r}  # the Sun's GM of DE421
length_unit = "au"
mass_unit = "Msun"
time_unit = "d"
unit_length = {au!r}  # DE421's au [m]
unit_mass = {kg!r}  # the Sun's GM over CODATA 2018's G [kg]
unit_time = 86400.0
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--errors", action="store_true", help="print the error table instead (about a minute)")
    if parser.parse_args().errors:
        errors()
    else:
        write()
