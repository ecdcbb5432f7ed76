'use strict';
// Before the page is drawn, so that it does not flash in the other theme.
// Storage may be forbidden: then the theme is that of the system.
try {
  const theme = localStorage.getItem('shardproof-theme');
  if (theme === 'light' || theme === 'dark') {
    document.documentElement.dataset.theme = theme;
  }
} catch (error) {
  // Not remembered.
}
