"""Which convention a mel seems to follow, and whether two models fit."""

from melglow_plugin.mel.doctor.compatibility import compare, convention_of_config
from melglow_plugin.mel.doctor.diagnosis import Diagnosis
from melglow_plugin.mel.doctor.doctor import diagnose
from melglow_plugin.mel.doctor.picture import plot

__all__ = ["Diagnosis", "compare", "convention_of_config", "diagnose", "plot"]
