// Stands in the place of the theme's script of this name, and does nothing on purpose.
//
// The theme's draws icons as SVG and, to do so, replaces every <i> on the page as it appears: 540 kB for a dozen
// icons, and ipywidgets' Play button loses the element it holds on to. Without the script the theme's own stylesheet
// draws the same icons from its font.
