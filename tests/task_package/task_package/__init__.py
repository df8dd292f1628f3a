"""Tasks of a package of somebody's own, by every way that leads to one."""

import gymnasium

for name in ("Slide", "SlideToGoal"):
    gymnasium.register(f"{name}-v0", f"task_package.slide:{name}", max_episode_steps=25)
