// Before the first paint: the theme that was chosen last, if any.
try {
  const theme = localStorage.getItem('theme')
  if (theme) document.documentElement.dataset.theme = theme
} catch { /* storage is blocked: the system's theme applies */ }
